"""Sizes, moments and counts, as people read them. Months are English whatever the locale; times are local."""

import time

_UNITS = ("B", "KB", "MB", "GB", "TB")
_DAY_S = 86400


def size(count: int | None) -> str:
    """``count`` bytes: “850 B”, “2.1 MB”, in steps of a thousand, as file managers show them; “–” for None."""
    if count is None:
        return "–"
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 or value >= 99.5 else f"{value:.1f} {_UNITS[unit]}"


def moment(ms: int | None, now_s: float | None = None) -> str:
    """A time in milliseconds since 1970: “today 09:12”, “yesterday 17:40”, “12 May 09:12”, “12 May 2023”; “–” for None."""
    if ms is None:
        return "–"
    now_s = time.time() if now_s is None else now_s
    try:
        then, today = time.localtime(ms / 1000), time.localtime(now_s)
    except (OverflowError, ValueError, OSError):
        return "at an impossible time"
    clock = time.strftime("%H:%M", then)
    if then[:3] == today[:3]:
        return f"today {clock}"
    if then[:3] == time.localtime(now_s - _DAY_S)[:3]:
        return f"yesterday {clock}"
    date = f"{then.tm_mday} {time.strftime('%b', then)}"
    return f"{date} {clock}" if then.tm_year == today.tm_year else f"{date} {then.tm_year}"


def count(number: int, one: str, many: str | None = None) -> str:
    """“1 file”, “3 files”."""
    return f"{number} {one if number == 1 else many or one + 's'}"
