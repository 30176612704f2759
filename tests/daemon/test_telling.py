"""`p2psync why`: what is so now, what is awaited and from whom, who holds what, and the story, from whole machines."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2psync.daemon.telling import LATEST
from p2psync.store import vanishing
from p2psync.store.finding import NotKnown
from tests.lan.fake_lan import Lan, Machine, until

BOOKS = "Dupont SA"


@pytest.fixture(autouse=True)
def seconds_that_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vanishing, "monotonic", trio.current_time)


async def why(machine: Machine, name: str, **query: str) -> dict[str, Any]:
    """The answer, which is fit for JSON and tells what to do whatever it is about."""
    answer = await machine.get("/v1/why", mandate=BOOKS, name=name, **query)
    json.dumps(answer)
    now = answer["now"]
    assert now["reason"] and "{" not in now["reason"]
    assert now["state"] == "synced" or (now["action"] and now["machine"] and now["code"]), now
    return answer


def story(answer: dict[str, Any]) -> list[str]:
    return [one["sentence"] for one in answer["story"]]


async def _together(anna: Machine, bruno: Machine) -> None:
    anna.write("Belege/scan.pdf", "scan")
    await anna.create(BOOKS, anna.write("journal.csv", "one"), anna.place / "Belege")
    await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
    await until(lambda: bruno.reads(f"{BOOKS}/Belege/scan.pdf") and bruno.reads(f"{BOOKS}/journal.csv"))
    assert (await anna.wait())["agreed"]


async def test_from_the_first_save_to_a_conflict_settled_deleted_and_detached(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        await _together(anna, bruno)
        told = await why(anna, "Belege/scan.pdf")
        assert told["now"]["state"] == "synced" and "and on Bruno (" in told["now"]["reason"]
        assert told["here"]["location"] == str(anna.place / "Belege/scan.pdf") and told["here"]["elsewhere"]
        assert not (await why(bruno, "Belege/scan.pdf"))["here"]["elsewhere"]
        assert [(m["self"], m["holds"]) for m in told["machines"]] == [(True, "current"), (False, "current")]
        assert len(story(told)) == 2 and "attached the folder “Belege” (asked for by the user" in story(told)[1]

        bruno.unplug()
        anna.write("journal.csv", "Anna's")
        bruno.write(f"{BOOKS}/journal.csv", "Bruno's")
        await until(lambda: bruno.office.device not in anna.office.links)
        await until(lambda: anna.mandate().idle)
        told = await why(anna, "journal.csv")
        assert told["now"]["state"] == "synced" and "not known whether Bruno (" in told["now"]["reason"]
        assert told["machines"][1]["holds"] == "older" and told["machines"][1]["last_seen"] and not told["machines"][1]["online"]
        bruno.plug()
        await until(lambda: "journal.csv" in anna.mandate().attention and (anna.place / "journal.csv").exists())
        await until(lambda: any("(Bruno" in p.name or "(Anna" in p.name for p in anna.place.iterdir()))
        told = await why(anna, "journal.csv")
        assert told["now"]["code"] == "conflict" and sorted(v["person"] for v in told["versions"]) == ["Anna", "Bruno"]
        assert sum("a conflict" in one for one in story(told)) == 1
        (copy,) = [p for p in anna.place.iterdir() if "(Bruno" in p.name or "(Anna" in p.name]
        for name in (copy.name, str(copy)):
            told = await why(anna, name)
            assert told["now"]["code"] == "conflict-copy" and told["name"] == "journal.csv" and told["here"]["location"] == str(copy)
        await anna.ask("/v1/resolve", mandate=BOOKS, name="journal.csv", keep="theirs")
        await until(lambda: bruno.reads(f"{BOOKS}/journal.csv") == "Bruno's" == anna.reads("journal.csv"))
        await until(lambda: not bruno.mandate().attention)
        told = await why(bruno, "journal.csv")
        assert "settled the conflict" in story(told)[0] and "keeping" in story(told)[0] and told["story"][0]["person"] == "Anna"

        (anna.place / "Belege/scan.pdf").unlink()
        anna.watcher.hear(anna.place / "Belege/scan.pdf", "touched")
        anna.write("Belege/other.pdf", "other")
        await until(lambda: bruno.reads(f"{BOOKS}/Belege/scan.pdf") is None)
        told = await why(bruno, "Belege/scan.pdf")
        assert told["now"]["state"] == "deleted" and "deleted by Anna" in told["now"]["reason"]
        assert told["now"]["commands"][1].endswith(f"--version {told['story'][1]['version']}")
        assert "deleted it, which was version" in story(told)[0]
        folder = await why(bruno, "Belege")
        assert "deleted “Belege/scan.pdf”" in " ".join(story(folder)) and folder["machines"][0]["sentence"] == "has all of it"

        await anna.ask("/v1/detach", mandate=BOOKS, name="Belege")
        await until(lambda: not any(name.text == "Belege" for name in bruno.mandate().books.locations()))
        for name in ("Belege/other.pdf", "Belege"):
            told = await why(bruno, name)
            assert (
                told["now"]["code"] == "detached" and "taken out of “Dupont SA” by Anna" in told["now"]["reason"] and not told["machines"]
            )


async def test_what_is_awaited_and_from_whom(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        await _together(anna, bruno)
        fetcher = bruno.mandate().fetcher
        ask, fetcher.ask = fetcher.ask, lambda conversation: None  # type: ignore[method-assign]
        anna.write("journal.csv", "x" * 500_000)
        await until(lambda: fetcher.wants("journal.csv"))
        told = await why(bruno, "journal.csv")
        assert told["now"]["state"] == "receiving" and told["now"]["since"]
        assert told["awaited"]["bytes"] == told["awaited"]["of"] == 500_000 and not told["awaited"]["nobody"]
        assert told["awaited"]["have_it"] == told["awaited"]["online"] == [anna.mandate().machine(anna.office.device)]
        assert told["machines"][0]["holds"] == "older"
        there = await why(anna, "journal.csv")
        assert there["now"]["state"] == "sending" and "Bruno (" in there["now"]["machine"]
        fetcher.ask = ask  # type: ignore[method-assign]
        fetcher.ask_everybody()
        await until(lambda: bruno.reads(f"{BOOKS}/journal.csv") == "x" * 500_000)
        lock = bruno.write(f"{BOOKS}/.~lock.journal.csv#", "Bruno,bruno,salon,24.11.2026 09:12,file:///x;")
        anna.write("journal.csv", "two")
        await until(lambda: "journal.csv" in bruno.mandate().attention and bruno.mandate().attention["journal.csv"].code == "locked-here")
        told = await why(bruno, "journal.csv")
        assert told["here"]["open"] == "open in LibreOffice by Bruno on salon" and told["here"]["open_since"]
        assert told["awaited"] is None and "Close the file" in told["now"]["action"]
        lock.unlink()


async def test_this_machine_does_not_have_what_is_missing_or_was_changed_by_a_reader(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    rita = lan.machine("Rita", peers=(anna,))
    async with anna.on(), rita.on():
        await anna.create(BOOKS, anna.write("journal.csv", "one"), anna.write("cash.csv", "one"))
        ticket = await anna.ask("/v1/invite", mandate=BOOKS, role="reader", **{"for": "Rita"})
        await rita.subscribe(str(ticket["ticket"]))
        await until(lambda: rita.reads(f"{BOOKS}/journal.csv") and rita.reads(f"{BOOKS}/cash.csv"))
        assert (await anna.wait())["agreed"]
        rita.write(f"{BOOKS}/journal.csv", "a reader's")
        (rita.place / BOOKS / "cash.csv").unlink()
        rita.mandate().rescan()
        await until(lambda: {why.code for why in rita.mandate().attention.values()} == {"reader", "missing-file"})
        altered, missing = await why(rita, "journal.csv"), await why(rita, "cash.csv")
        assert altered["machines"][0]["sentence"] == "has something else in its place, which is not recorded"
        assert missing["machines"][0]["sentence"] == "had a version of it, and nothing stands in its place now"
        assert {altered["machines"][0]["holds"], missing["machines"][0]["holds"]} == {"older"}
        assert missing["here"]["kind"] is None and missing["machines"][1]["holds"] == "current"


async def test_what_is_never_shared_says_why(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    async with anna.on():
        anna.write("Belege/scan.pdf", "scan")
        for name in ("a:b.txt", "~$Bilan.docx", ".p2psync-x"):
            (anna.place / "Belege" / name).write_text("x")
        await anna.create(BOOKS, anna.place / "Belege")
        await until(lambda: "Belege/a:b.txt" in anna.mandate().attention)
        codes = {name: (await why(anna, f"Belege/{name}"))["now"]["code"] for name in ("a:b.txt", "~$Bilan.docx", ".p2psync-x")}
        assert codes == {"a:b.txt": "unfit-name", "~$Bilan.docx": "work-file", ".p2psync-x": "own-file"}
        assert (await why(anna, str(anna.place / "Belege/a:b.txt")))["now"]["code"] == "unfit-name"
        (anna.place / "Belege/silent.txt").write_text("nobody has heard of it")
        assert (await why(anna, "Belege/silent.txt"))["now"]["code"] == "not-recorded"


@pytest.mark.parametrize(
    ("name", "near"), [("nix", ""), ("SCAN.pdf", "; perhaps you mean “Belege/scan.pdf”"), ("/etc/passwd", ""), ("a:b", "")]
)
async def test_what_never_was_is_refused_and_a_near_name_is_told(lan: Lan, autojump_clock: MockClock, name: str, near: str) -> None:
    anna = lan.machine("Anna")
    async with anna.on():
        anna.write("Belege/scan.pdf", "scan")
        await anna.create(BOOKS, anna.place / "Belege")
        await until(lambda: anna.mandate().idle)
        with pytest.raises(NotKnown) as refused:
            await why(anna, name)
        assert refused.value.facts["near"] == near


async def test_the_story_is_bounded_and_can_be_had_as_a_whole(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    async with anna.on():
        where = anna.write("journal.csv", "0")
        await anna.create(BOOKS, where)
        for number in range(LATEST + 5):
            anna.write("journal.csv", f"number {number}")
            await trio.sleep(2)
        told = await why(anna, "journal.csv")
        whole = await why(anna, "journal.csv", all="1")
        assert len(told["story"]) == LATEST and told["more"] == len(whole["story"]) - LATEST > 0 and whole["more"] == 0
        assert [one["version"] for one in whole["story"]][:LATEST] == [one["version"] for one in told["story"]]
