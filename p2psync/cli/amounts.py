"""Sizes, moments and counts, as people read them. Months are English whatever the locale; times are local."""

import time

from p2psync.values.amounts import count as count
from p2psync.values.amounts import size as size

_DAY_S = 86400


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
