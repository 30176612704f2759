"""What p2psync is to reach: figures of its own, and ratios to the others measured in the same run. No goal fails anything."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from measuring.report import p99, short

Samples = Mapping[str, Mapping[str, list[float]]]
"""Figure -> program -> samples."""

OURS = "p2psync"


@dataclass(frozen=True)
class Goal:
    """The figures that begin with ``figure`` are to be at most ``limit``, or ``limit`` times the median of the program ``other``."""

    figure: str
    limit: float
    other: str = ""
    of: Callable[[Sequence[float]], float] = statistics.median
    only_full: bool = False
    """Said of the full size of the work: with --quick it says nothing."""


GOALS = (
    Goal("W1 a new big file, s", 1.3, "rsync"),
    Goal("W1 a new big file, s", 0.5, "syncthing-tuned"),
    Goal("W1 CPU of both, s", 5, only_full=True),
    Goal("W1 peak RSS of the sender, MiB", 100, of=max),
    Goal("W1 peak RSS of the receiver, MiB", 100, of=max),
    Goal("W1 status answers, s", 0.1, of=p99),
    Goal("W2 files of 4 KiB, s", 0.5, "syncthing-tuned"),
    Goal("W2 files of 4 KiB, s", 1.0, "unison"),
    Goal("W2 files of 4 KiB, s", 1.3, "rsync"),
    Goal("W2 status answers, s", 0.1, of=p99),
    *(
        goal
        for label in (
            "W3a saved in place, s",
            "W3b saved by rename, s",
            "W3c saved during a bulk transfer, s",
            "W10 W3b saved by rename, s",
        )
        for goal in (Goal(label, 0.02), Goal(label, 0.06, of=p99))
    ),
    *(Goal(f"{work} {what}", 0, of=max) for work in ("W3a", "W3b", "W3c") for what in ("torn when read", "absent when read", "saves lost")),
    Goal("W4 4 KiB changed inside the big file, s", 0.5, "syncthing-tuned"),
    Goal("W4 4 KiB changed inside the big file, s", 1.0, "rsync"),
    Goal("W4 on the wire, MiB", 0.5),
    Goal("W5 1 KiB inserted, s", 0.15, "syncthing-tuned"),
    Goal("W5 on the wire, MiB", 0.35),
    Goal("W6 idle minute, CPU s per side", 0.06),
    Goal("W6 idle, RSS MiB per side", 60, of=max),
    Goal("W7 start until connected by local discovery, s", 1.0),
    Goal("W8 from the kill until the file stands, s", 4.0, only_full=True),
    Goal("W8 received beyond its size, MiB", 4.0),
    Goal("W9 ratio", 2.5),
    Goal("W10 start to ready, s", 5.0, only_full=True),
    Goal("W10 RSS MiB per side", 150, of=max, only_full=True),
    Goal("status from a shell, s", 0.15),
)
SHAPED = (Goal("W1 a new big file, s", 1.15, "rsync"),)
"""With --rate the wire is the limit, and W1 is to be this close to it."""


def goals(samples: Samples, quick: bool, shaped: bool) -> list[dict[str, object]]:
    """Each goal of which there are samples: what it is, how far it is (1: just reached), and whether it is reached."""
    found: list[dict[str, object]] = []
    for goal in (*SHAPED, *GOALS[2:]) if shaped else GOALS:
        have = samples.get(goal.figure, {})
        against = have.get(goal.other, []) if goal.other else [1.0]
        if OURS not in have or not have[OURS] or not against or (quick and goal.only_full):
            continue
        value, allowed = goal.of(have[OURS]), goal.limit * statistics.median(against)
        found.append(
            {
                "goal": f"{goal.figure} <= {short(goal.limit)}{f' x {goal.other}' if goal.other else ''}",
                "of": "p99" if goal.of is p99 else "greatest" if goal.of is max else "median",
                "value": round(value, 6),
                "allowed": round(allowed, 6),
                "reached": value <= allowed,
            }
        )
    return found


def verdicts(found: list[dict[str, object]]) -> str:
    """The goals as a table."""
    lines = [f"{'goal':72} {'':8} {'p2psync':>9} {'allowed':>9}"]
    for goal in found:
        value, allowed = float(str(goal["value"])), float(str(goal["allowed"]))
        distance = "reached" if goal["reached"] else f"{value / allowed:.1f} times too much" if allowed else "not reached"
        lines.append(f"{goal['goal']:72} {goal['of']:8} {short(value):>9} {short(allowed):>9}  {distance}")
    return "\n".join(lines)
