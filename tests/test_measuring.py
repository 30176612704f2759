"""The bench measures times and judges nothing by them; but what it counts must be able to be found."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the bench."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return lambda name: importlib.import_module(f"measuring.{name}")


def test_an_onlooker_sees_what_is_torn_and_what_is_absent(measuring: Any, tmp_path: Path) -> None:
    path, steps = tmp_path / "book.xlsx", [b"the first version", b"the second version"]
    with measuring("saving").Onlooker(path) as onlooker:
        path.write_bytes(steps[0])
        assert onlooker.wait_for(steps[0]) is not None
        path.write_bytes(steps[1])
        assert onlooker.wait_for(steps[1]) is not None
        torn, absent = onlooker.torn, onlooker.absent
        path.write_bytes(b"half")
        while onlooker.torn == torn:
            assert onlooker.take() is not None
        path.unlink()
        while onlooker.absent == absent:
            assert onlooker.take() is not None


def test_an_onlooker_sees_a_save_that_keeps_size_and_time(measuring: Any, tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    path.write_bytes(b"one")
    with measuring("saving").Onlooker(path) as onlooker:
        assert onlooker.wait_for(b"one") is not None
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        (tmp_path / "new").write_bytes(b"two")
        os.utime(tmp_path / "new", ns=times)
        (tmp_path / "new").rename(path)
        assert onlooker.wait_for(b"two") is not None


def test_goals_are_set_against_what_the_others_needed(measuring: Any) -> None:
    figure = "W1 a new big file, s"
    found = measuring("goals").goals({figure: {"p2psync": [3.0, 2.0, 2.5], "rsync": [2.0, 1.0, 2.0]}}, quick=True, shaped=False)
    assert [(goal["allowed"], goal["value"], goal["reached"]) for goal in found] == [(2.6, 2.5, True)]
    shaped = measuring("goals").goals({figure: {"p2psync": [2.5], "rsync": [2.0]}}, quick=True, shaped=True)
    assert [(goal["allowed"], goal["reached"]) for goal in shaped] == [(2.3, False)]


def test_the_99th_of_100_is_p99(measuring: Any) -> None:
    p99 = measuring("report").p99
    assert p99([float(number) for number in range(1, 101)]) == 99
    assert p99([1.0, 7.0]) == 7
