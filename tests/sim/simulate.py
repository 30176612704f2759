"""Many simulated runs, and what they were like: seeds per second, what befell the machines, which decisions were taken, what failed."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.sim import mutants
from tests.sim.mutants import MUTANTS, applied
from tests.sim.rows import ROWS, noting_rows
from tests.sim.same import Endless
from tests.sim.schedule import Schedule, draw, shrink
from tests.sim.start import Start, kind_of
from tests.sim.world import World

PLACE = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path("/var/tmp")
LONGEST_S = 60
"""Seconds of a processor after which a run is given up."""
_STARTS: dict[tuple[Schedule, Path, str | None], Start] = {}


@dataclass
class Outcome:
    """What became of one run: ``breach`` is empty when every promise was kept."""

    seed: int
    digest: str = ""
    breach: str = ""
    where: str = ""
    happened: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)
    ended: dict[str, frozenset[bytes | None]] = field(default_factory=dict)
    deeds: list[str] = field(default_factory=list)


def play(schedule: Schedule) -> Outcome:
    """Go through one schedule, at a place that is the same each time."""
    place = PLACE / f"p2psync-sim-{os.getpid()}"
    _clear(place)
    place.mkdir(mode=0o700)
    outcome = Outcome(schedule.seed)
    world: World | None = None
    signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, LONGEST_S)
    try:
        start = _start(schedule, place)
        world = World(schedule, place)
        with noting_rows(outcome.rows):
            world.run(start)
    except BaseException as error:  # whatever ends a run is what it found
        first = _leaf(error)
        if isinstance(first, KeyboardInterrupt):
            raise
        outcome.breach = (
            f"L5 {first}"
            if isinstance(first, Endless)
            else str(first)
            if isinstance(first, AssertionError)
            else f"{type(first).__name__}: {first}"
        )
        outcome.where = "".join(traceback.format_exception(first)[-14:])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        _clear(place)
    if world is not None:
        outcome.digest, outcome.happened, outcome.ended = world.digest, world.happened, world.ended
        outcome.deeds = sorted(world.known.deeds)
        outcome.trace = [line.replace(str(place), "") for line in world.trace]
    return outcome


def _start(schedule: Schedule, place: Path) -> Start | None:
    """The office that a run begins with, founded once in each process and for each deliberate fault."""
    kind = kind_of(schedule)
    if kind is None:
        return None
    known = (kind, place, mutants.active)
    if known not in _STARTS:
        _STARTS[known] = World(kind, place).founded()
        _clear(place)
        place.mkdir(mode=0o700)
    return _STARTS[known]


def _too_long(number: int, frame: object) -> None:
    raise Endless(f"not at an end after {LONGEST_S} s")


def _clear(place: Path) -> None:
    """Remove what a run left; nothing of the run's own interposing is in force here."""
    if place.exists():
        for path, folders, files in os.walk(place, topdown=False):
            for name in files:
                os.unlink(os.path.join(path, name))
            for name in folders:
                one = os.path.join(path, name)
                os.unlink(one) if os.path.islink(one) else os.rmdir(one)
        os.rmdir(place)


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def summary(breach: str) -> str:
    """What kind of breach it is: the invariant, or the first words."""
    return breach[:2] if breach[:1] in "IL" and breach[1:2].isdigit() else breach[:40]


def smallest(schedule: Schedule) -> tuple[Schedule, Outcome]:
    """A shorter schedule that fails in the same way, and its outcome."""
    first = play(schedule)
    kind = summary(first.breach)

    def fails(one: Schedule) -> bool:
        return summary(play(one).breach) == kind

    small = shrink(schedule, fails)
    return small, play(small)


# ---- the command


def main(words: list[str]) -> int:
    """``scripts/simulate``: 0 when every run kept every promise, else 1."""
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", default="1000", metavar="N|A-B", help="how many runs, or from which seed to which (1000)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes at a time (one for each core)")
    parser.add_argument("--minutes", type=float, metavar="M", help="stop after so long, wherever it is")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="with this deliberate fault in the product")
    parser.add_argument("--show", type=int, metavar="SEED", help="only this run: the shrunk schedule and the trace")
    args = parser.parse_args(words)
    if not re.fullmatch(r"\d+(-\d+)?", args.seeds):
        parser.error(f"--seeds takes a number or A-B, not {args.seeds}")
    with applied(args.mutant):
        if args.show is not None:
            return show(args.show)
        return simulate(args)


def show(seed: int) -> int:
    """Print what a run that fails comes down to."""
    schedule, outcome = smallest(draw(seed))
    for step in schedule.steps:
        print("   ", step)
    print("\n".join(outcome.trace))
    print(outcome.where or f"seed {seed}: every promise was kept")
    return 1 if outcome.breach else 0


def simulate(args: argparse.Namespace) -> int:
    """Go through the seeds and print the report."""
    first, _, last = args.seeds.partition("-")
    seeds = range(int(first), int(last)) if last else range(int(first))
    began = time.monotonic()
    done, happened, rows, failed = 0, Counter[str](), Counter[str](), list[Outcome]()
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.set())  # the report of what was done is printed all the same
    for outcome in _outcomes(seeds, args.jobs, args.mutant):
        done += 1
        happened += outcome.happened
        rows += outcome.rows
        if outcome.breach:
            failed.append(outcome)
            print(f"seed {outcome.seed}: {outcome.breach[:300]}", flush=True)
        if stopped.is_set() or (args.minutes and time.monotonic() - began > args.minutes * 60):
            break
    took = time.monotonic() - began
    print(f"\n{done} runs in {took:.0f} s, {done / took:.1f} a second; {len(failed)} failed")
    print("\nwhat happened: " + ", ".join(f"{kind} {count}" for kind, count in sorted(happened.items())))
    print("\nrows of the table of decisions (engine/reconcile):")
    for row in ROWS:
        print(f"  {rows[row]:10}  {row}")
    if failed:
        print(
            "\nfailures by kind: "
            + ", ".join(f"{kind} {count}" for kind, count in Counter(summary(o.breach) for o in failed).most_common())
        )
        print(f"the shortest way to the first: scripts/simulate --show {failed[0].seed}")
    missing = [row for row in ROWS if not rows[row]]
    if missing:
        print(f"never reached: {missing}")
    return 1 if failed else 0


def _outcomes(seeds: range, jobs: int, mutant: str | None) -> Iterator[Outcome]:
    if jobs == 1:
        yield from map(_short, seeds)
        return
    with multiprocessing.get_context("fork").Pool(jobs, signal.signal, (signal.SIGTERM, signal.SIG_DFL), maxtasksperchild=200) as pool:
        yield from pool.imap_unordered(_short, seeds, chunksize=4)


def _short(seed: int) -> Outcome:
    outcome = play(draw(seed))
    outcome.trace = []
    return outcome


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is part of a run
        os.execve(sys.executable, [sys.executable, "-m", "tests.sim.simulate", *sys.argv[1:]], os.environ | {"PYTHONHASHSEED": "0"})
    sys.exit(main(sys.argv[1:]))
