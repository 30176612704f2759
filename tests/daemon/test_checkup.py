"""The doctor, asked of whole machines."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import pytest
from trio.testing import MockClock

from p2psync.daemon.office import Office
from p2psync.edge import echo
from p2psync.edge.watcher import WatchLimit
from tests.lan.fake_lan import Lan, Machine, until

BOOKS = "Dupont SA"


@pytest.fixture(autouse=True)
def ports_that_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echo, "answers", lambda addresses, port: set(addresses))


async def findings(machine: Machine) -> dict[str, dict[str, Any]]:
    answer = await machine.get("/v1/doctor")
    assert answer["ok"] == all(one["ok"] for one in answer["findings"])
    assert all(one["sentence"] and "{" not in one["sentence"] for one in answer["findings"])
    return {one["code"]: one for one in answer["findings"]}


async def test_a_machine_alone_and_one_that_is_reached(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        await anna.create(BOOKS, anna.write("journal.csv", "one"))
        found = await findings(anna)
        assert {"by-hand", "network", "mdns-off", "port", "not-needed", "clock-alone", "home", "no-problems"} <= found.keys()
        assert "10.0.0.1" in found["network"]["sentence"]
        await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
        assert (await bruno.wait())["agreed"]
        found = await findings(anna)
        assert "the last one from 10.0.0.2" in found["reached"]["sentence"] and "Bruno" in found["clock"]["sentence"]
        found = await findings(bruno)
        assert not found["never-reached"]["ok"] and "1 connection that there" in found["never-reached"]["sentence"]
        assert found["never-reached"]["commands"] == ["sudo ufw allow 22088/tcp"]


async def test_what_is_wrong_is_pointed_at(lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        await anna.create(BOOKS, anna.write("journal.csv", "one"))
        await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
        assert (await bruno.wait())["agreed"]
        (watch, *_) = anna.mandate().watching.all()
        watch.fault = "It may not be read"
        (peer,) = anna.office.links.values()
        peer.clock_off_ms = -3 * 3600 * 1000

        def nobody(addresses: Iterable[str], port: int) -> set[str]:
            return set()

        monkeypatch.setattr(echo, "answers", nobody)
        monkeypatch.setattr(Office, "interfaces", lambda office: [])
        found = await findings(anna)
        assert {"unwatched", "clock-off", "no-network", "problems"} <= found.keys()
        assert "180 minutes" in found["clock-off"]["sentence"] and str(anna.place) in found["unwatched"]["sentence"]
        monkeypatch.undo()
        anna.watcher.problem = WatchLimit(limit=8, what="folders at once", setting="max_user_watches", better=524_288)
        found = await findings(anna)
        assert found["watch-limit"]["action"].startswith("Raise the limit")


async def test_the_doctor_is_quick(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    async with anna.on():
        await anna.create(BOOKS, anna.write("journal.csv", "one"))
        await until(lambda: anna.mandate().idle)
        since = time.perf_counter()
        await findings(anna)
        assert time.perf_counter() - since < 1
