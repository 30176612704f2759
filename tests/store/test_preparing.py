"""A version for which there is no room takes none: what fits goes in meanwhile."""

from __future__ import annotations

import os
import random

import pytest

from p2psync.store.faults import DiskFull
from p2psync.store.staging import Staging
from tests.lan.desks import Desk, fast_place


def test_what_does_not_fit_leaves_its_room_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with fast_place() as place:
        anna = Desk(place / "anna", "Anna").found()
        folder = anna.files / "recus"
        folder.mkdir(parents=True)
        (folder / "first").write_text("first")
        anna.attach(folder)
        marie = Desk(place / "marie", "Marie").join(anna, anna.invite("Marie"))
        marie.learn(anna)
        marie.settle(anna)
        (folder / "large").write_bytes(random.Random(1).randbytes(300_000))
        anna.settle()
        marie.learn(anna)
        put = Staging.put

        def full(staging: Staging, index: int, data: bytes) -> None:
            if index:
                raise DiskFull(path="large")
            put(staging, index, data)

        with monkeypatch.context() as patched:
            patched.setattr(Staging, "put", full)
            marie.settle(anna)
        assert sorted(os.listdir(marie.folder / "recus")) == ["first"]
        for desk in (anna, marie):
            desk.arrivals.close()
            desk.books.close()
