"""What the tests of the daemon stand on: a network in one trio run, without threads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lan.fake_lan import Lan, no_threads


@pytest.fixture
def lan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lan:
    no_threads(monkeypatch)
    return Lan(tmp_path, monkeypatch)
