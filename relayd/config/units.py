"""Durations as they are written: "250ms", "30s", "5m", "1h30m", "1d". Pure; the unit inside is the millisecond."""

import re

_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
#: The form of a duration, for the JSON schema as well: each unit once, from large to small.
DURATION_PATTERN = r"^(?=[0-9])([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m(?!s))?([0-9]{1,9}s)?([0-9]{1,9}ms)?$"
_DURATION = re.compile(DURATION_PATTERN[:-1] + r"\Z")
#: A year: longer is "off" in all but name, and a digit too many is found out.
DURATION_MAX_MS = 366 * _UNITS_MS["d"]


class DurationError(ValueError):
    """The text is not a duration. `suggestion` is a text that would be, or ""."""

    def __init__(self, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.suggestion = suggestion


def parse_duration_ms(text: str) -> int:
    """Milliseconds. Raises DurationError, also for more than DURATION_MAX_MS."""
    match = _DURATION.match(text)
    if not match:
        raise DurationError(f"is not a duration: a number and a unit ({', '.join(_UNITS_MS)})", _corrected(text))
    total = sum(
        int(part.removesuffix(unit)) * size
        for part, (unit, size) in zip(match.groups(), _UNITS_MS.items(), strict=True)
        if part
    )
    if total > DURATION_MAX_MS:
        raise DurationError(f"is longer than {format_duration(DURATION_MAX_MS)}")
    return total


def format_duration(milliseconds: int) -> str:
    """The shortest exact form: `parse_duration_ms(format_duration(n)) == n`."""
    if milliseconds == 0:
        return "0s"
    parts = []
    for unit, size in _UNITS_MS.items():
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def _corrected(text: str) -> str:
    """A duration that `text` was probably meant to be: a space, a long unit name, an upper-case letter."""
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*([A-Za-z]*)\s*", text)
    if not match:
        return ""
    number, unit = match[1], match[2].lower()
    for names, short in (
        (("", "s", "sec", "secs", "second", "seconds"), "s"),
        (("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"), "ms"),
        (("m", "min", "mins", "minute", "minutes"), "m"),
        (("h", "hr", "hrs", "hour", "hours"), "h"),
        (("d", "day", "days"), "d"),
    ):
        if unit in names:
            return number + short
    return ""
