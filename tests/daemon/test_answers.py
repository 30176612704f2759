"""“Answers, not percentages”: an office goes through the states, and every status on the way says which file, which machine, why, and what
to do."""

from __future__ import annotations

import shutil

import pytest
import trio
from trio.testing import MockClock

from p2psync.daemon.admission import OfficeStale, TicketUsed
from p2psync.engine.concerns import CONCERNS
from p2psync.engine.messages import Hello
from p2psync.store import vanishing
from p2psync.store.root import Root
from tests.lan.answers import Listener, faults_of
from tests.lan.fake_lan import Lan, Machine, until
from tests.lan.puppet import Puppet

BOOKS = "Dupont SA"


def codes(machine: Machine) -> dict[str, str]:
    return {shown: why.code for shown, why in machine.mandate().attention.items()}


async def test_every_status_of_an_office_in_every_state_answers(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna = lan.machine("Anna")
    bruno, rita = lan.machine("Bruno", peers=(anna,)), lan.machine("Rita", peers=(anna,))
    heard = Listener()
    monkeypatch.setattr(vanishing, "monotonic", trio.current_time)  # its seconds, too, cost nothing
    async with anna.on(), bruno.on(), rita.on(), trio.open_nursery() as nursery:
        for machine in (anna, bruno, rita):
            await nursery.start(heard.hear, machine)
        await _comes_together(anna, bruno, rita)
        await _quarrels(anna, bruno)
        await _waits(anna, bruno)
        await _loses(anna, bruno)
        await _reads(rita)
        await _fills_its_disk(anna, bruno, monkeypatch)
        await _goes_home(anna, bruno)
        nursery.cancel_scope.cancel()
    expected = {"sending", "fetching", "conflict", "locked-here", "nobody-has-it", "missing-file", "missing-root", "many-deletions"}
    expected |= {"bad-name", "unreadable", "name-collision", "reader", "reader-new", "space-short"}
    expected |= {"never-met", "offline", "catching-up", "untold"}
    assert heard.codes >= expected, expected - heard.codes


async def _comes_together(anna: Machine, bruno: Machine, rita: Machine) -> None:
    for number in range(20):
        anna.write(f"Belege/{number:02}.pdf", f"scan {number}")
    anna.write("Belege/a:b.txt", "a name that Windows cannot store")
    (anna.place / "Belege/link").symlink_to("00.pdf")
    await anna.create(BOOKS, anna.write("journal.csv", "one"), anna.place / "Belege")
    await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
    ticket = await anna.ask("/v1/invite", mandate=BOOKS, role="reader", **{"for": "Rita"})
    await rita.subscribe(str(ticket["ticket"]))
    await until(lambda: all(m.reads(f"{BOOKS}/Belege/19.pdf") and m.reads(f"{BOOKS}/journal.csv") for m in (bruno, rita)))
    said = await anna.wait()
    assert said["agreed"], said["waiting_for"]


async def _quarrels(anna: Machine, bruno: Machine) -> None:
    """Both change a file while they cannot hear each other; then Anna decides."""
    bruno.unplug()
    anna.write("journal.csv", "Anna's")
    bruno.write(f"{BOOKS}/journal.csv", "Bruno's")
    await until(lambda: bruno.office.device not in anna.office.links)
    bruno.plug()
    await until(lambda: codes(anna).get("journal.csv") == codes(bruno).get("journal.csv") == "conflict")
    await anna.ask("/v1/resolve", mandate=BOOKS, name="journal.csv", keep="mine")
    await until(lambda: not codes(bruno) and "journal.csv" not in codes(anna))
    anna.write("Belege/Caisse.xlsx", "one spelling")
    await until(lambda: bruno.reads(f"{BOOKS}/Belege/Caisse.xlsx"))
    anna.write("Belege/caisse.xlsx", "another spelling")
    await until(lambda: "name-collision" in codes(anna).values())
    (anna.place / "Belege/caisse.xlsx").unlink()
    anna.mandate().rescan()
    await until(lambda: "name-collision" not in codes(anna).values())


async def _waits(anna: Machine, bruno: Machine) -> None:
    """Bruno has the file open."""
    lock = bruno.write(f"{BOOKS}/.~lock.journal.csv#", "Bruno,bruno,salon,24.11.2026 09:12,file:///x;")
    anna.write("journal.csv", "three")
    await until(lambda: codes(bruno).get("journal.csv") == "locked-here")
    said = await bruno.wait(2)
    assert not said["agreed"]
    assert [(one["code"], one["name"], one["machine"]) for one in said["waiting"]] == [("locked-here", "journal.csv", "this machine")]
    said = await anna.wait(2)
    assert {one["code"] for one in said["waiting"]} == {"catching-up"} and "Bruno" in said["waiting"][0]["machine"]
    lock.unlink()
    await until(lambda: bruno.reads(f"{BOOKS}/journal.csv") == "three")


async def _loses(anna: Machine, bruno: Machine) -> None:
    """A file that vanished, a folder that did, and half of what is in it."""
    (bruno.place / BOOKS / "journal.csv").unlink()
    bruno.watcher.hear(bruno.place / BOOKS / "journal.csv", "touched")
    await until(lambda: codes(bruno).get("journal.csv") == "missing-file")
    await bruno.ask("/v1/restore", mandate=BOOKS, name="journal.csv", version=None)
    await until(lambda: bruno.reads(f"{BOOKS}/journal.csv"))
    shutil.move(bruno.place / BOOKS / "Belege", bruno.place / "elsewhere")
    bruno.mandate().rescan()
    await until(lambda: codes(bruno).get("Belege") == "missing-root")
    shutil.move(bruno.place / "elsewhere", bruno.place / BOOKS / "Belege")
    bruno.mandate().rescan()
    await until(lambda: not codes(bruno))
    for number in range(15):
        (bruno.place / BOOKS / f"Belege/{number:02}.pdf").unlink()
    bruno.mandate().rescan()
    await until(lambda: codes(bruno).get("Belege") == "many-deletions")
    await bruno.ask("/v1/restore", mandate=BOOKS, name="Belege", version=None)
    await until(lambda: bruno.reads(f"{BOOKS}/Belege/07.pdf") and not codes(bruno))


async def _reads(rita: Machine) -> None:
    rita.write(f"{BOOKS}/journal.csv", "a reader's")
    rita.write(f"{BOOKS}/Belege/new.txt", "a reader's")
    await until(lambda: {"reader", "reader-new"} <= set(codes(rita).values()))


async def _fills_its_disk(anna: Machine, bruno: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("p2psync.store.preparing.VAULTED", 0)
        patch.setattr(Root, "space", lambda *_: (0, 1 << 40))
        anna.write("journal.csv", "four")
        await until(lambda: codes(bruno).get("journal.csv") == "space-short")
        (shown,) = [a for a in (await bruno.status())["mandates"][0]["attachments"] if a["name"] == "journal.csv"]
        assert "left of" in shown["reason"] and "room" in shown["action"]
    bruno.mandate().rescan()
    await until(lambda: bruno.reads(f"{BOOKS}/journal.csv") == "four")


async def _goes_home(anna: Machine, bruno: Machine) -> None:
    """Bruno learns of a version that he cannot have any more, since Anna goes at that moment."""
    fetcher = bruno.mandate().fetcher
    ask, fetcher.ask = fetcher.ask, lambda conversation: None  # type: ignore[method-assign]
    anna.write("journal.csv", "five" * 100_000)
    await until(lambda: codes(bruno).get("journal.csv") == "fetching")
    await anna.stop()
    fetcher.ask = ask  # type: ignore[method-assign]
    await until(lambda: anna.office.device not in bruno.office.links)
    (shown,) = [a for a in (await bruno.status())["mandates"][0]["attachments"] if a["name"] == "journal.csv"]
    assert shown["code"] == "nobody-has-it" and shown["machine"].startswith("Anna (") and shown["machine"] in shown["action"]
    assert "by Anna is announced" in shown["reason"]


async def test_a_ticket_that_nobody_answers_and_one_that_is_refused_say_so(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno")
    async with anna.on(), bruno.on():
        await anna.create(BOOKS, anna.write("journal.csv", "one"))
        text = await anna.invite(BOOKS, "Bruno")
        (ticket,) = (await anna.get("/v1/participants", mandate=BOOKS))["tickets"]
        assert ticket["code"] == "ticket-open" and ticket["action"] and ticket["machine"] == "the machine of Bruno"
        lan.blocked.add((bruno.address, anna.address))
        await bruno.subscribe(text)
        (problem,) = (await bruno.status())["problems"]
        assert not list(faults_of(await bruno.status()))
        assert problem["code"] == "joining" and "Anna" in problem["machine"] and problem["mandate"] == BOOKS and problem["since"]
        (invite,) = bruno.office.joinings
        bruno.office.refusals[invite] = OfficeStale()
        assert {p["code"] for p in (await bruno.status())["problems"]} == {"joining", "office-stale"}
        bruno.office.end_joining(invite, TicketUsed(issuer="Anna"))
        (problem,) = (await bruno.status())["problems"]
        assert problem["code"] == "ticket-used" and problem["person"] and not list(faults_of(await bruno.status()))
        lan.blocked.clear()
        await bruno.subscribe(text)  # what was refused before is no problem any more, once the ticket is accepted
        assert (await bruno.status())["problems"] == []


async def test_what_is_wrong_with_another_machine_names_it(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on():
        async with bruno.on():
            await anna.create(BOOKS, anna.write("journal.csv", "one"))
            await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
            assert (await bruno.wait())["agreed"]
        puppet = Puppet(lan, bruno)
        async with puppet.calling(anna, opened=False):
            await puppet.say(Hello(1, 1, 0, 0, b"", "puppet"))
            await until(lambda: anna.office.links)
            status = await anna.status()
            assert [p["code"] for p in status["problems"]] == ["clock-differs"] and "Bruno" in status["problems"][0]["machine"]
            (said,) = (await anna.wait(1))["waiting"]
            assert said["code"] == "just-come" and "Bruno" in said["machine"] and CONCERNS["just-come"].action == said["action"]
            assert not list(faults_of(status))
        puppet.close()
