"""Both daemons killed at random times while programs save, rename and delete: at last everything is the same and nothing is lost.

Each program works on files of its own, so that what must stand there at last is known to the byte; some files both sides save, in which
conflicts may arise, and then each side's last save is on the disk, beside it, or in the history.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.real.killings import content
from tests.real.machines import files_below
from tests.real.victims import BOOKS, Machine, Pair, Watching, save

ROUND_S = 12.0
"""So long there is load and killing; then all is brought to rest and looked at."""
PAUSE_S = (0.01, 0.12)
"""Between two acts of a program."""
FILES = 40
"""Files of each program at the beginning: three deletions a round are then nothing that waits for a person."""
SHARED = ("recus/shared a", "recus/shared b", "compta.cre")


@dataclass
class Program:
    """Somebody who works in the books of one machine, on files of its own and now and then on shared ones."""

    desk: Machine
    chance: random.Random
    mine: dict[str, bytes] = field(default_factory=dict)
    last: dict[str, bytes] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    turn: int = 0

    def begin(self) -> None:
        """The files there are at first."""
        for number in range(FILES):
            self._save(f"recus/{self.desk.person}/{number:02d}", self._new())

    def work(self, stop: threading.Event) -> None:
        """Act after act until told to stop."""
        deletions = 0
        while not stop.wait(self.chance.uniform(*PAUSE_S)):
            act = self.chance.choices(["over", "in place", "new", "rename", "delete", "shared"], [40, 15, 15, 15, 3, 4])[0]
            name = self.chance.choice(sorted(self.mine))
            if act == "delete" and deletions < 3:
                deletions += 1
                del self.mine[name]
                (self.desk.folder / name).unlink()
            elif act == "rename":
                new = f"recus/{self.desk.person}/{self.chance.choice(['', 'sub/', 'sub/deep/'])}renamed {self.turn}"
                (self.desk.folder / new).parent.mkdir(parents=True, exist_ok=True)
                (self.desk.folder / name).rename(self.desk.folder / new)
                self.mine[new] = self.mine.pop(name)
            elif act == "new":
                self._save(f"recus/{self.desk.person}/new {self.turn}", self._new())
            elif act == "in place":
                self.mine[name] = self._new()
                _in_place(self.desk.folder / name, self.mine[name])
            elif act == "shared":
                shared = self.chance.choice(SHARED)
                self.last[shared] = self._new()
                save(self.desk.folder / shared, self.last[shared])
            else:
                self._save(name, self._new())
            self.counts[act] += 1

    def _save(self, name: str, data: bytes) -> None:
        self.mine[name] = data
        save(self.desk.folder / name, data)

    def _new(self) -> bytes:
        """A version of a size of its own: by that it is known in the history."""
        self.turn += 1
        size = self.chance.choice([500, 20_000, 60_000]) + self.turn * 2 + (self.desk.person == "Anna")
        return content(self.turn, size, self.desk.person)


def _in_place(path: Path, data: bytes) -> None:
    """As many programs save: the file is emptied and written again, piece by piece."""
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(data), 8192):
            file.write(data[start : start + 8192])
            time.sleep(0.002)


class UnderLoad:
    """The two machines, their programs, and what was counted; ``seed`` decides who does what and who is killed when."""

    def __init__(self, top: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.pair = Pair(top)
        self.programs = [Program(desk, random.Random(f"{seed} {desk.person}")) for desk in (self.pair.anna, self.pair.bruno)]
        self.counts: Counter[str] = Counter()
        self.longest = 0.0
        self.faults: list[str] = []

    def begin(self) -> None:
        """The books, and everybody's files."""
        anna, bruno = self.programs
        for name in SHARED:
            save(anna.desk.folder / name, content(0))
        anna.begin()
        self.pair.begin().join("compta.cre", "recus")
        bruno.begin()
        self.pair.rest()

    def round(self) -> None:
        """Load and kills, then rest, and what must be so."""
        stop = threading.Event()
        watches = [Watching(self.pair.bruno.folder / "recus/Anna"), Watching(self.pair.anna.folder / "recus/Bruno")]
        workers = [threading.Thread(target=program.work, args=(stop,)) for program in self.programs]
        with watches[0], watches[1]:
            for worker in workers:
                worker.start()
            try:
                self._kill_for(ROUND_S)
            finally:
                stop.set()
                for worker in workers:
                    worker.join()
            since = time.monotonic()
            for program in self.programs:
                if not program.desk.alive:
                    program.desk.up()
                program.desk.answers()
            self.pair.rest(limit_s=60)
        self.longest = max(self.longest, time.monotonic() - since)
        self.counts["rounds"] += 1
        self.faults += [fault for watch in watches for fault in watch.faults] + self._look()

    def _kill_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(self.chance.choice([self.chance.uniform(0, 0.8), self.chance.uniform(0.5, 3)]))
            victims = self.chance.choice([self.programs[:1], self.programs[1:], self.programs])
            for program in victims:
                program.desk.kill()
                self.counts[f"kills of {program.desk.person}"] += 1
            time.sleep(self.chance.choice([0, 0, 0.3, 1]))
            for program in victims:
                program.desk.up()

    def _look(self) -> list[str]:
        found = self.pair.faults()
        for desk in (self.pair.anna, self.pair.bruno):
            stands = files_below(desk.folder)
            for program in self.programs:
                own = {name: data for name, data in stands.items() if name.startswith(f"recus/{program.desk.person}/")}
                wrong = [name for name in {*own, *program.mine} if own.get(name) != program.mine.get(name)]
                found += [f"{desk.person} does not hold what was last done to “{name}”" for name in wrong]
                everywhere = set(stands.values())
                for name, data in program.last.items():
                    if data not in everywhere and len(data) not in {v.get("size") for v in desk.versions(name)}:
                        found.append(f"what {program.desk.person} last saved at “{name}” is nowhere with {desk.person}")
        self._resolve()
        return found

    def _resolve(self) -> None:
        for conflict in self.pair.bruno.get("/v1/conflicts")["conflicts"]:
            self.counts["conflicts"] += 1
            self.pair.bruno.does("resolve", BOOKS, conflict["name"], "--keep", str(conflict["versions"][0]["version"]))
        self.pair.rest()
        for program in self.programs:
            program.last.clear()

    def told(self) -> str:
        """What was done so far, in one line."""
        acts: Counter[str] = sum((program.counts for program in self.programs), Counter())
        counts = ", ".join(f"{number} {what}" for what, number in [*self.counts.items(), *acts.items()])
        return f"{counts}; at rest again after at most {self.longest:.1f} s; {len(self.faults)} faults"

    def end(self) -> None:
        """Stop everything."""
        self.pair.end()


def seeded() -> int:
    """A seed that nobody chose."""
    return int.from_bytes(os.urandom(4), "big")
