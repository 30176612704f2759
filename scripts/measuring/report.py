"""The figures of all runs, as a table for people and as JSON for comparison."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring.session import Figures

MACHINE = "machine"
WIDTH = 47


class Report:
    """What was measured so far: figure -> program -> samples; and what each program said of itself."""

    def __init__(self, about: dict[str, Any]) -> None:
        self.about = about
        self.samples: dict[str, dict[str, list[float]]] = {}
        self.failures: list[str] = []

    def add(self, program: str, figures: Figures) -> None:
        """Take in the figures of one work."""
        for name, values in figures.items():
            self.samples.setdefault(name, {}).setdefault(program, []).extend(round(float(value), 6) for value in values)

    def take_in(self, path: Path) -> None:
        """Add what an earlier measurement wrote, as if it had been measured now."""
        earlier = json.loads(path.read_text(encoding="utf-8"))
        self.about["programs"] = {**earlier["programs"], **self.about["programs"]}
        self.failures += earlier["failures"]
        for figure, row in earlier["samples"].items():
            for program, values in row.items():
                self.add(program, {figure: values})

    def table(self) -> str:
        """Every figure with its median, least and greatest sample, a column for each program; the machine's limits at the end."""
        programs = [name for name in self.about["programs"] if any(name in row for row in self.samples.values())]
        lines = [f"{'median (least-greatest)':{WIDTH}}" + "".join(f"{name:>23}" for name in programs)]
        for figure in sorted(self.samples, key=_in_order):
            row = self.samples[figure]
            if MACHINE not in row:
                lines.append(f"{figure:{WIDTH}}" + "".join(f"{spread(row.get(name, [])):>23}" for name in programs))
        lines += [f"{figure:{WIDTH + 8}}{spread(row[MACHINE]):>23}" for figure, row in self.samples.items() if MACHINE in row]
        return "\n".join(lines)

    def write(self, path: Path, goals: list[dict[str, object]]) -> None:
        """Everything, every single sample, as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        machine = {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        all_of_it = {"when": when, "machine": machine, **self.about, "failures": self.failures, "goals": goals, "samples": self.samples}
        path.write_text(json.dumps(all_of_it, indent=1) + "\n", encoding="utf-8")


def spread(values: Sequence[float]) -> str:
    """The median, and between brackets the least and the greatest when there are several that differ."""
    if not values:
        return "-"
    middle = short(statistics.median(values))
    return middle if max(values) == min(values) else f"{middle} ({short(min(values))}-{short(max(values))})"


def _in_order(figure: str) -> tuple[int, str]:
    """W2 before W10, and what has no number at the end."""
    number = re.match(r"W(\d+)", figure)
    return (int(number[1]) if number else 1000, figure)


def p99(values: Sequence[float]) -> float:
    """The least sample that 99 of 100 do not exceed (nearest rank)."""
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


def short(value: float) -> str:
    """A number with three digits that mean something."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"
