"""What programs use, read from /proc and from the switch: processor time, memory and bytes on the wire."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from measuring.lan import Desk

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SAMPLE_S = 0.05


def tree(pids: Sequence[int]) -> Iterator[int]:
    """`pids` and all that descend from them and still run."""
    for pid in pids:
        yield pid
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                yield from tree([int(child) for child in children.read_text().split()])


def cpu_s(pids: Sequence[int]) -> float:
    """Processor seconds, user and system, of the trees below `pids` so far, ended and awaited children included."""
    ticks = 0
    for pid in tree(pids):
        with contextlib.suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[11:15]))
    return ticks / TICKS_PER_S


def memory_mib(pids: Sequence[int], field: str) -> float:
    """MiB in the trees below `pids`: `VmRSS` is what is resident now, `VmHWM` the most since `forget_peak`."""
    total = 0
    for pid in tree(pids):
        with contextlib.suppress(OSError):
            if found := re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(errors="replace"), re.MULTILINE):
                total += int(found[1])
    return total / 1024


def forget_peak(pids: Sequence[int]) -> None:
    """Let the peaks start again from what is held now (proc(5), clear_refs)."""
    for pid in tree(pids):
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


class Costs:
    """`with Costs(desks, pids) as costs:` what is used inside the block: `cpu` (s), `peak` and `rss` (MiB) on each desk, and `wire`,
    the bytes that the first desk sent and received."""

    def __init__(self, desks: Sequence[Desk], pids: Sequence[Sequence[int]]) -> None:
        self.desks, self.pids = desks, pids
        self.cpu, self.peak, self.rss = [0.0] * len(pids), [0.0] * len(pids), [0.0] * len(pids)
        self.wire = 0
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Costs:
        for pids in self.pids:
            forget_peak(pids)
        self.wire = -sum(self.desks[0].wire_bytes())
        self.cpu = [-cpu_s(pids) for pids in self.pids]
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._sampler.join()
        self.cpu = [before + cpu_s(pids) for before, pids in zip(self.cpu, self.pids, strict=True)]
        self.rss = [memory_mib(pids, "VmRSS") for pids in self.pids]
        self._look()
        self.wire += sum(self.desks[0].wire_bytes())

    def figures(self, work: str) -> dict[str, list[float]]:
        """As rows of the table: both sides, the sender first."""
        return {
            f"{work} CPU of the sender, s": [self.cpu[0]],
            f"{work} CPU of the receiver, s": [self.cpu[1]],
            f"{work} CPU of both, s": [sum(self.cpu)],
            f"{work} peak RSS of the sender, MiB": [self.peak[0]],
            f"{work} peak RSS of the receiver, MiB": [self.peak[1]],
            f"{work} on the wire, MiB": [self.wire / (1 << 20)],
        }

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self._look()

    def _look(self) -> None:
        self.peak = [max(peak, memory_mib(pids, "VmHWM")) for peak, pids in zip(self.peak, self.pids, strict=True)]
