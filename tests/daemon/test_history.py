"""The history of whole machines: what is let go is said and can be had from others, and a disk that is short of room loses nothing."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2psync.daemon import caretaker
from p2psync.daemon.caretaker import Caretaker
from p2psync.daemon.status import problems
from p2psync.edge.caller import Caller
from p2psync.edge.http import Download, Reply, Request
from p2psync.engine.retention import Policy
from p2psync.store import apply, calendar, preparing, retaining, seeing, sharing, sources, space
from p2psync.store.calendar import DAY_S
from p2psync.store.listings import chunks_of
from p2psync.store.resolving import VersionDropped, VersionNotHere
from p2psync.store.space import Reserve, Space
from p2psync.values.digest import content_digest
from tests.lan.fake_lan import Lan, Machine, until

BOOKS = "Dupont SA"
SHORT = Policy(2, 3, 0)
GB = 10**9


def of(machine: Machine, name: str = "a.cre") -> str:
    return f"{BOOKS}/{name}"


async def read(machine: Machine, path: str, **query: str) -> Any:
    reply = await machine.control.handle(Request("GET", path, query, {}, Caller(os.getuid(), os.getgid(), os.getpid(), "")))
    if isinstance(reply, Download):
        return b"".join([piece async for piece in reply.pieces])
    assert isinstance(reply, Reply)
    return reply.body


async def history(machine: Machine) -> list[dict[str, Any]]:
    return [v for v in (await read(machine, "/v1/history", mandate=BOOKS, name="a.cre"))["versions"] if v["size"] is not None]


def _two(lan: Lan) -> tuple[Machine, Machine]:
    return lan.machine("Anna"), lan.machine("Bruno", peers=(lan.machines["10.0.0.1"],))


async def _saves(anna: Machine, bruno: Machine, texts: list[str]) -> None:
    """Anna's file in a mandate of both, saved once for each text, each of which reaches Bruno."""
    first, *others = texts
    file = anna.write("files/a.cre", first)
    await anna.create(BOOKS, file)
    await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
    for text in [first, *others]:
        anna.write("files/a.cre", text)
        await until(partial(_shows, bruno, of(bruno), text), text)


def _shows(machine: Machine, path: str, text: str) -> bool:
    return machine.reads(path) == text


def holds(machine: Machine, text: str) -> bool:
    books = machine.mandate().books
    chunks = chunks_of(books.ledger.read(), content_digest(text.encode()))
    return books.vault.has(chunks) == chunks


async def _let_go(machine: Machine, policy: Policy = SHORT) -> None:
    """Ninety days pass on a machine, and its history is looked through."""
    machine.office.config = replace(machine.office.config, keep=policy)
    calendar.count(machine.mandate().books, DAY_S)
    calendar.count(machine.mandate().books, 90 * DAY_S)
    for _ in range(3):
        await Caretaker(machine.office).collect(machine.mandate())


async def test_what_one_machine_lets_go_is_said_and_can_be_had_from_another(lan: Lan, autojump_clock: MockClock) -> None:
    anna, bruno = _two(lan)
    async with anna.on():
        async with bruno.on():
            await _saves(anna, bruno, ["one", "two", "three"])
            assert [v["kept"] for v in await history(anna)] == [True] * 3
            await _let_go(anna)
            rows = await history(anna)
            assert [(v["kept"], bool(v["dropped_ms"])) for v in rows] == [(True, False), (False, True), (False, True)]
            assert [v["kept"] for v in await history(bruno)] == [True] * 3
            oldest = rows[-1]["version"]
            before = anna.mandate().reckoning.lacking
            await anna.ask("/v1/recall", mandate=BOOKS, name="a.cre", version=oldest)
            assert await read(anna, "/v1/content", mandate=BOOKS, name="a.cre", version=oldest) == b"one"
            assert anna.mandate().reckoning.lacking == before == (0, 0)
            await Caretaker(anna.office).collect(anna.mandate())
            assert holds(anna, "one")  # somebody may still be reading it
            await anna.ask("/v1/restore", mandate=BOOKS, name="a.cre", version=rows[1]["version"])
            await until(lambda: bruno.reads(of(bruno)) == "two" == anna.reads("files/a.cre"))
            assert [v["dropped_ms"] for v in await history(anna)][:2] == [None, None]
        await _let_go(anna)
        anna.mandate().recalled.clear()
        await _let_go(anna)
        with pytest.raises(VersionDropped, match="let go on this machine by its policy"):
            await anna.ask("/v1/recall", mandate=BOOKS, name="a.cre", version=oldest)
        with pytest.raises(VersionDropped):
            await anna.ask("/v1/restore", mandate=BOOKS, name="a.cre", version=oldest)
        assert anna.reads("files/a.cre") == "two"


async def test_a_version_that_was_never_here_is_asked_of_those_who_are_online(lan: Lan, autojump_clock: MockClock) -> None:
    """Carla came later: she has the whole journal, and of the contents only the current ones."""
    anna, bruno = _two(lan)
    carla = lan.machine("Carla", peers=(anna, bruno))
    async with anna.on(), bruno.on():
        await _saves(anna, bruno, ["one", "two"])
        async with carla.on():
            await carla.subscribe(await anna.invite(BOOKS, "Carla"))
            await until(lambda: carla.reads(of(carla)) == "two" and carla.talks(bruno))
            rows = await history(carla)
            assert [(v["kept"], v["dropped_ms"]) for v in rows] == [(True, None), (False, None)]
            await anna.stop()
            await carla.ask("/v1/recall", mandate=BOOKS, name="a.cre", version=rows[1]["version"])
            assert await read(carla, "/v1/content", mandate=BOOKS, name="a.cre", version=rows[1]["version"]) == b"one"
            carla.mandate().recalled.clear()
            await bruno.stop()
    async with carla.on():
        assert await read(carla, "/v1/content", mandate=BOOKS, name="a.cre", version=rows[1]["version"]) == b"one"


async def test_a_version_that_nobody_has_is_refused_with_whom_to_wait_for(lan: Lan, autojump_clock: MockClock) -> None:
    anna, bruno = _two(lan)
    carla = lan.machine("Carla", peers=(anna,))
    async with anna.on(), bruno.on():
        await _saves(anna, bruno, ["one", "two"])
        async with carla.on():
            await carla.subscribe(await anna.invite(BOOKS, "Carla"))
            await until(lambda: carla.reads(of(carla)) == "two")
            oldest = (await history(carla))[-1]["version"]
            await _let_go(anna)
            await _let_go(bruno)
            with pytest.raises(VersionNotHere, match="Anna"):
                await carla.ask("/v1/recall", mandate=BOOKS, name="a.cre", version=oldest)
            assert carla.mandate().fetcher.missing == (0, 0) and not carla.mandate().fetcher.paths


async def test_the_caretaker_comes_by_itself_and_hurts_nobody_who_works(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history is gone through all the time while versions come and go: what is needed is there at every moment."""
    for name in ("FIRST_S", "DAILY_S", "PAUSE_S"):
        monkeypatch.setattr(caretaker, name, 0.01)
    monkeypatch.setattr(caretaker, "LOOK_S", 0.05)
    monkeypatch.setattr(retaining, "SLICE", 1)
    anna, bruno = _two(lan)
    async with anna.on(), bruno.on():
        for machine in (anna, bruno):
            machine.office.config = replace(machine.office.config, keep=Policy(1, 0, 0))
            machine.office._nursery.start_soon(Caretaker(machine.office).run)
        await _saves(anna, bruno, ["first"])
        for turn in range(12):
            saver, other = (anna, bruno) if turn % 2 else (bruno, anna)
            for machine in (anna, bruno):
                calendar.count(machine.mandate().books, DAY_S)
            path = {anna: "files/a.cre", bruno: of(bruno)}
            text = f"version {turn % 5}"  # contents come back that were let go
            saver.write(path[saver], text)
            await until(partial(_shows, other, path[other], text))
            for machine in (anna, bruno):
                kept = retaining.derive(machine.mandate().books, Policy(1, 0, 0))
                assert content_digest(text.encode()) in kept.needed and holds(machine, text)
            await trio.sleep(turn % 3)
        await until(lambda: not any(holds(machine, f"version {n}") for machine in (anna, bruno) for n in (2, 3)))
        status = await anna.status()
        assert status["mandates"][0]["history"]["versions"] >= 12 and status["disks"]


async def test_nothing_is_fetched_to_a_disk_that_is_short_and_it_goes_on_by_itself(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna, bruno = _two(lan)
    async with anna.on(), bruno.on():
        await _saves(anna, bruno, ["one"])
        room = {"free": 500_000_000}
        real = space.of

        def of_bruno(place: Path) -> Space:
            return Space(room["free"], 100 * GB) if bruno.place in place.parents else real(place)

        monkeypatch.setattr(space, "of", of_bruno)
        bruno.office._nursery.start_soon(Caretaker(bruno.office).run)
        anna.write("files/a.cre", "two")
        await until(lambda: bruno.mandate().attention.get("a.cre") and bruno.mandate().attention["a.cre"].code == "space-short")
        status = await bruno.status()
        shown = status["mandates"][0]["attachments"][0]
        assert shown["state"] == "waiting" and "has only 500 MB left of 100 GB, and 5.0 GB are left alone" in shown["reason"]
        assert "Make room" in shown["action"] and any(
            p["code"] == "space-short" and "The histories of this machine take" in p["action"] for p in status["problems"]
        )
        assert bruno.reads(of(bruno)) == "one" and not (await anna.wait(0))["agreed"]
        room["free"] = 50 * GB
        await until(lambda: bruno.reads(of(bruno)) == "two")
        await until(lambda: not bruno.office.problems)
        assert (await anna.wait())["agreed"]


async def test_what_is_saved_on_a_full_disk_is_recorded_and_sent_and_copied_when_there_is_room(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna, bruno = _two(lan)
    async with anna.on(), bruno.on():
        await _saves(anna, bruno, ["one"])
        room = {"free": 100_000_000}
        real = space.of
        monkeypatch.setattr(space, "of", lambda place: Space(room["free"], 100 * GB) if anna.place in place.parents else real(place))
        monkeypatch.setattr(space, "disks", lambda places: {place: space.of(place) for place in places})
        anna.office._nursery.start_soon(Caretaker(anna.office).run)
        anna.write("files/a.cre", "two")
        await until(lambda: bruno.reads(of(bruno)) == "two")
        assert not holds(anna, "two") and (await history(anna))[0]["kept"]
        await until(lambda: any(p["code"] == "only-on-disk" for p in problems(anna.office)))
        room["free"] = 50 * GB
        await until(lambda: holds(anna, "two"))
        await until(lambda: not anna.mandate().troubles)


def test_the_reserve_is_given_up_when_the_disk_is_full_and_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = {"free": 50 * GB}
    monkeypatch.setattr(space, "of", lambda place: Space(room["free"], 100 * GB))
    monkeypatch.setattr(space, "RESERVE", 1_000_000)
    reserve = Reserve(tmp_path)
    assert reserve.keep_up() and reserve.path.stat().st_blocks * 512 >= 1_000_000
    room["free"] = 900_000
    assert reserve.keep_up()  # the reserve is there for this
    room["free"] = 100_000
    assert not reserve.keep_up() and not reserve.held
    room["free"] = 1_100_000
    assert not reserve.keep_up()
    room["free"] = 50 * GB
    assert reserve.keep_up() and reserve.held


@pytest.mark.parametrize(
    ("total", "floor"),
    [(2 * 1024**3, 2 * 1024**3 // 10), (10 * 1024**3, 1024**3), (20 * 1024**3, 1024**3), (1000 * 1024**3, 50 * 1024**3), (0, 0)],
)
def test_what_is_left_alone(total: int, floor: int) -> None:
    assert Space(0, total).floor == floor


async def test_what_a_large_file_shares_with_the_next_is_copied_within_moments(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sources, seeing, apply, preparing, sharing):
        monkeypatch.setattr(module, "VAULTED", 1000)
    anna, bruno = _two(lan)
    old = "".join(content_digest(b"%d" % n).hex() for n in range(10_000))
    new = old[:300_000] + "changed" + old[300_000:]
    async with anna.on(), bruno.on(), trio.open_nursery() as nursery:
        await _saves(anna, bruno, [old, new])
        assert not holds(bruno, old)
        nursery.start_soon(Caretaker(bruno.office).run)
        await until(partial(holds, bruno, old), "the old version is in the vault as a whole")
        assert not holds(bruno, new)
        nursery.cancel_scope.cancel()
