"""The figures of all runs, as a table for people and as JSON for comparison."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from pathlib import Path

from measuring.works import Figures


class Report:
    """What was measured so far: program -> figure -> samples."""

    def __init__(self) -> None:
        self.samples: dict[str, dict[str, list[float]]] = {}

    def add(self, program: str, figures: Figures) -> None:
        """Take in the figures of one work."""
        known = self.samples.setdefault(program, {})
        for name, values in figures.items():
            known.setdefault(name, []).extend(float(value) for value in values)

    def table(self) -> str:
        """Median, least and greatest of every figure."""
        lines = [f"{'':44} {'program':>10} {'median':>9} {'min':>9} {'max':>9}  runs"]
        names = sorted({name for figures in self.samples.values() for name in figures})
        for name in names:
            for program, figures in self.samples.items():
                if values := figures.get(name):
                    numbers = " ".join(f"{_short(value):>9}" for value in (statistics.median(values), min(values), max(values)))
                    lines.append(f"{name:44} {program:>10} {numbers}  {len(values):4}")
        return "\n".join(lines)

    def write(self, path: Path, quick: bool) -> None:
        """Everything, every single sample, as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        machine = {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        path.write_text(
            json.dumps({"when": when, "quick": quick, "machine": machine, "samples": self.samples}, indent=1) + "\n", encoding="utf-8"
        )


def _short(value: float) -> str:
    if value == int(value) or value >= 1000:
        return f"{value:.0f}"
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"
