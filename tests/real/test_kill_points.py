"""Killed (kill -9) at chosen I/O steps of real daemons: after the restart both sides are the same to the byte, and nothing is lost.

A handful of points; ``scripts/killpoints`` goes through all of them, and ``--random`` kills at random times under load.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real import iosteps, killings
from tests.real.iosteps import How, Step
from tests.real.victims import BOOKS, Machine, save
from tests.story.desks import until

pytestmark = [pytest.mark.real, pytest.mark.skipif(iosteps.MISSING is not None, reason=str(iosteps.MISSING))]

CALLS = "write,pwrite64,fsync,fdatasync,syncfs,ftruncate,rename,renameat,renameat2,link,linkat,symlink,unlink,unlinkat,rmdir,mkdir,mkdirat"
CALLS += ",fchmod,fchown,chmod,fchmodat,utimensat,copy_file_range"


def scenario(name: str) -> killings.Scenario:
    return next(one for one in killings.SCENARIOS if one.name == name)


def at(*wanted: tuple[str, str, How]) -> Callable[[list[Step]], list[tuple[Step, How]]]:
    """The first step of each call whose path has this in it."""

    def chosen(steps: list[Step]) -> list[tuple[Step, How]]:
        return [(next(s for s in steps if s.call == call and part in s.path), how) for call, part, how in wanted]

    return chosen


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("receive a replacement", [("pwrite64", "vault.db-wal", How.HALF), ("renameat2", "compta.cre", How.AFTER)]),
        ("record a save", [("fdatasync", "ledger.db-wal", How.BEFORE)]),
    ],
)
def test_killed_at(tmp_path: Path, name: str, points: list[tuple[str, str, How]]) -> None:
    outcomes = list(killings.go_through(scenario(name), tmp_path, at(*points), warm=False))
    assert len(outcomes) == len(points)
    for outcome in outcomes:
        assert not outcome.faults, f"{outcome.how.name} {outcome.step}: {outcome.faults}"
    assert any(outcome.step for outcome in outcomes), "nobody was killed"


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace, to see that no step is left out")
def test_what_is_counted_is_what_the_kernel_sees(tmp_path: Path) -> None:
    anna = Machine("Anna", tmp_path / "anna")
    trace = tmp_path / "trace"
    anna.within = ["strace", "--follow-forks", "--decode-fds=path", f"--trace={CALLS}", f"--output={trace}", "-s0"]
    save(anna.folder / "a.cre", b"saved")
    anna.steps.begin()
    try:
        anna.up().answers()
        anna.does("create", BOOKS, anna.folder / "a.cre")
        anna.settled()
        anna.end()
        until("strace is done", lambda: not anna.alive)
    finally:
        anna.kill()
    counted = Counter((step.call, step.path) for step in anna.steps.end() if step.call != "open")
    seen = Counter(_seen(trace.read_text(errors="replace"), anna.place))
    assert seen == counted
    assert counted["fdatasync", next(path for _, path in counted if path.endswith("ledger.db-wal"))] > 2


def _seen(trace: str, place: Path) -> list[tuple[str, str]]:
    """The calls of a trace that were about something below ``place``, as (call, path)."""
    found = []
    for call, arguments in re.findall(r"^\d+ +(\w+)\((.*?)(?:\) += .*|<unfinished \.\.\.>)$", trace, re.MULTILINE):
        name = re.findall(r'(?:<([^>]*)>, )?"([^"]*)"', arguments)
        descriptor = re.match(r"\d+<([^>]*)>", arguments)
        path = str(Path(*name[-1])) if name and call not in ("write", "pwrite64") else descriptor[1] if descriptor else ""
        if Path(path).is_relative_to(place) and not path.endswith("-shm"):
            found.append((call, path))
    return found
