"""Sizes, rates, counts and times for people. Pure."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400
#: In place of what is not known.
UNKNOWN = "-"


def size(count: float) -> str:
    """`1.5 MiB`: three digits or so."""
    value, unit = float(count), 0
    while value >= 1023.95 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{value:.0f} B"


def rate(bytes_per_s: float | None) -> str:
    """`1.5 MiB/s`; `-` where it is not known."""
    return UNKNOWN if bytes_per_s is None else f"{size(bytes_per_s)}/s"


def per_second(events: float | None) -> str:
    """`0`, `0.3`, `12`, `1,234`, of events in a second."""
    if events is None:
        return UNKNOWN
    return f"{events:.1f}" if 0 < events < 9.95 else f"{events:,.0f}"


def count(number: int) -> str:
    """`4,000`."""
    return f"{number:,d}"


def lasting(seconds: float) -> str:
    """`9s`, `3m12s`, `2h05m`, `5d03h`: two units, and no wider than six columns for three months."""
    whole = max(0, int(seconds))
    if whole < _MINUTE_S:
        return f"{whole}s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S}m{whole % _MINUTE_S:02d}s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S}h{whole % _HOUR_S // _MINUTE_S:02d}m"
    return f"{whole // _DAY_S}d{whole % _DAY_S // _HOUR_S:02d}h"
