"""What happens in a run, drawn from its seed: a list of steps, each with a chance of its own, so that steps can be left out one by one."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.sim.disk import Traits

PEOPLE = ("Anna", "Marie", "Luc", "Eva")

WEIGHTS = {
    # people and their programs
    "save": 30,
    "save_plain": 30,
    "save_single": 12,
    "save_slowly": 4,
    "keep_open": 6,
    "rename": 8,
    "delete": 5,
    "delete_folder": 2,
    "delete_single": 2,
    "empty": 1,
    "unmount": 3,
    "make_folder": 2,
    "permit": 2,
    "save_in_between": 10,
    # the network
    "part": 6,
    "mend": 6,
    "reset": 3,
    # machines
    "stop": 3,
    "kill": 5,
    "power_cut": 5,
    "kill_at_step": 8,
    "power_cut_at_step": 8,
    "fault": 6,
    "full": 2,
    "deaf": 3,
    "clock": 3,
    # people who answer
    "resolve": 4,
    "pause": 4,
}


@dataclass(frozen=True)
class Step:
    """One thing that happens ``gap_s`` after the one before: its kind, at which machine, and its own seed."""

    gap_s: float
    kind: str
    who: int
    seed: int

    def __str__(self) -> str:
        return f"+{self.gap_s:g} s {self.kind} {PEOPLE[self.who]} {self.seed}"


@dataclass(frozen=True)
class Schedule:
    """One run."""

    seed: int
    machines: int
    traits: tuple[Traits, ...]
    skews_s: tuple[int, ...]
    slow: bool
    steps: tuple[Step, ...] = field(default=())

    def without(self, numbers: set[int]) -> Schedule:
        """The same run with some steps left out; what came after comes as long after as before."""
        kept: list[Step] = []
        owed = 0.0
        for number, step in enumerate(self.steps):
            if number in numbers:
                owed += step.gap_s
            else:
                kept.append(Step(step.gap_s + owed, step.kind, step.who, step.seed))
                owed = 0.0
        return Schedule(self.seed, self.machines, self.traits, self.skews_s, self.slow, tuple(kept))


def draw(seed: int) -> Schedule:
    """The run of a seed."""
    chance = random.Random(f"schedule {seed}")
    machines = chance.choice([2, 2, 2, 3, 3, 4])
    traits = tuple(_traits(chance) for _ in range(machines))
    skews = tuple(chance.choice([0, 0, -315_360_000, 315_360_000, 5]) for _ in range(machines))
    kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
    calm = chance.random() < 0.2  # without faults, so that plain things are judged exactly
    if calm:
        weights = [weight if kind in _CALM else 0 for kind, weight in WEIGHTS.items()]
    steps = tuple(
        Step(
            chance.choice([0.0, 0.0, 0.003, 0.05, 0.5, 2.0, 15.0]),
            chance.choices(kinds, weights)[0],
            chance.randrange(machines),
            chance.randrange(1 << 30),
        )
        for _ in range(chance.choice([8, 15, 25, 40]))
    )
    slow = chance.random() < 0.5
    if seed % EACH == 3:
        steps = _with_backup(steps, machines, chance)
    elif seed % EACH == 1:
        steps = _with("unreadable", steps, machines, chance)
    elif seed % (5 * EACH) == 2:
        steps = _with("namesakes", steps, machines, chance)
    return Schedule(seed, machines, traits, skews, slow, steps)


EACH = 4
"""In one of so many runs somebody restores an old backup, in one something cannot be read, and in a fifth of one names collide."""


def _with_backup(steps: tuple[Step, ...], machines: int, chance: random.Random) -> tuple[Step, ...]:
    """The same steps, with a backup that somebody makes of one machine and restores there later."""
    taken, who = chance.randrange(len(steps)), chance.randrange(machines)
    restored = chance.randint(taken, len(steps))
    kind = chance.choice(["restore_state", "restore_files", "restore_both"])
    gaps, seeds = [chance.choice([0.0, 2.0, 15.0]) for _ in range(2)], [chance.randrange(1 << 30) for _ in range(2)]
    made = Step(gaps[0], "back_up", who, seeds[0])
    return (*steps[:taken], made, *steps[taken:restored], Step(gaps[1], kind, who, seeds[1]), *steps[restored:])


def _with(kind: str, steps: tuple[Step, ...], machines: int, chance: random.Random) -> tuple[Step, ...]:
    at = chance.randrange(len(steps))
    return (*steps[:at], Step(2.0, kind, chance.randrange(machines), chance.randrange(1 << 30)), *steps[at:])


_CALM = {"save", "save_plain", "save_single", "save_slowly", "keep_open", "part", "mend", "reset", "resolve", "pause", "clock", "stop"}


def _traits(chance: random.Random) -> Traits:
    if chance.random() < 0.6:
        return Traits()
    return Traits(
        coarse_s=chance.choice([0.0, 0.0, 1.0, 2.0]),
        casefold=chance.random() < 0.2,
        nfd=chance.random() < 0.2,
        no_swap=chance.random() < 0.3,
        no_noreplace=chance.random() < 0.2,
        no_lease=chance.random() < 0.2,
        no_exec=chance.random() < 0.2,
    )


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool], *, tries: int = 300) -> Schedule:
    """A run with fewer steps that still fails: halves, quarters … and single steps are left out while it does."""
    size = max(1, len(schedule.steps) // 2)
    while True:
        start = len(schedule.steps) - size
        while start > -size and tries > 0:
            tries -= 1
            smaller = schedule.without(set(range(max(start, 0), start + size)))
            if len(smaller.steps) < len(schedule.steps) and fails(smaller):
                schedule = smaller
            start -= size
        if size == 1 or tries <= 0:
            return schedule
        size //= 2
