"""What a process has used so far, read from /proc."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Use:
    """CPU seconds (user and system, ended children included) and resident memory (MiB) of one process."""

    cpu_s: float
    rss_mib: float
    peak_mib: float


def use_of(pid: int) -> Use:
    """What process `pid` has used since its start; the peak since `forget_peak`."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    return Use(sum(map(int, fields[11:15])) / TICKS_PER_S, _mib(status, "VmRSS"), _mib(status, "VmHWM"))


def forget_peak(pid: int) -> None:
    """Let the peak of `pid` start again from what it holds now (proc(5), clear_refs)."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def _mib(status: str, field: str) -> float:
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0
