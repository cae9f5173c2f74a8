"""Times as nginx writes them: `30s`, `1h30m`, `1h 30m`, `500ms`; a bare number is seconds. Pure."""

import re

from relayd.config.units import DURATION_MAX_MS, format_duration

#: Months and years are nginx's own: 30 and 365 days.
_UNITS_MS = {
    "y": 31_536_000_000,
    "M": 2_592_000_000,
    "w": 604_800_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1_000,
    "ms": 1,
    "": 1_000,
}
_PART = re.compile(r"\s*([0-9]{1,12})(ms|y|M|w|d|h|m|s|)(?![A-Za-z])|\s*([0-9]{1,12})(ms|y|M|w|d|h|m|s)(?=[0-9])")


def milliseconds(text: str) -> int | None:
    """What `text` says, a year at most; None when it is no time."""
    total, position = 0, 0
    while position < len(text):
        found = _PART.match(text, position)
        if not found:
            return None
        digits, unit = (found[1], found[2]) if found[1] else (found[3], found[4])
        total += int(digits) * _UNITS_MS[unit]
        position = found.end()
    return min(total, DURATION_MAX_MS) if text.strip() else None


def seconds_text(text: str) -> str | None:
    """`text` as a duration of relayd in whole seconds, at least one; None when it is none."""
    ms = milliseconds(text)
    return format_duration(ms) if ms and ms % 1_000 == 0 else None
