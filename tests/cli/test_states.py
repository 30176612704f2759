"""What ``p2psync status`` prints: every state a sentence, every sentence that needs somebody with what to do next."""

from __future__ import annotations

from typing import Any

import pytest

from p2psync.cli.say import width
from p2psync.cli.states import describe, needs_person


def item(state: str, **more: Any) -> dict[str, Any]:
    return {
        "name": "Dupont 2024.cre",
        "kind": "file",
        "location": "/b/Dupont 2024.cre",
        "state": state,
        "reason": None,
        "size": 2_100_000,
    } | more


def mandate(*attachments: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "ab" * 32,
        "name": "Dupont SA",
        "state": "shared",
        "folder": "/b",
        "summary": "everything is up to date",
        "attachments": list(attachments),
        "participants": [],
        "conflicts": 0,
        "incoming": {"files": 0, "bytes": 0},
        "outgoing": {"files": 0, "bytes": 0},
    } | more


def status(*mandates: dict[str, Any], problems: Any = ()) -> dict[str, Any]:
    return {
        "device": {"id": "cd" * 32, "name": "Compta-PC"},
        "version": "1",
        "port": 22088,
        "problems": problems,
        "mandates": list(mandates),
    }


def text(*mandates: dict[str, Any], **more: Any) -> str:
    lines = describe(status(*mandates, **more))
    assert max(map(width, lines)) <= 80
    return "\n".join(lines)


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_a_quiet_office() -> None:
    people = [
        {"name": "Anna", "device": "Compta-PC", "role": "owner", "self": True, "online": True, "in_sync": True, "last_seen": None},
        {"name": "Bernard", "device": "Portable-B", "role": "editor", "self": False, "online": True, "in_sync": True, "last_seen": 1},
        {"name": "Claire", "device": "Salon", "role": "reader", "self": False, "online": True, "in_sync": False, "last_seen": 1},
        {"name": "Dora", "device": "Grenier", "role": "reader", "self": False, "online": False, "in_sync": False, "last_seen": None},
    ]
    assert text(mandate(item("synced"), participants=people)).splitlines() == [
        "“Compta-PC”, 1 mandate",
        "",
        "Dupont SA (shared): everything is up to date",
        "  in /b",
        "  Files:",
        "    Dupont 2024.cre   2.1 MB  up to date",
        "  Participants:",
        "    Anna     owner   Compta-PC   this machine",
        "    Bernard  editor  Portable-B  online, up to date",
        "    Claire   reader  Salon       online, catching up",
        "    Dora     reader  Grenier     not seen yet",
    ]


@pytest.mark.parametrize(
    ("attachment", "sentences"),
    [
        (item("synced"), ["up to date"]),
        (item("sending"), ["on its way to the others"]),
        (item("receiving"), ["a newer version is coming in"]),
        (item("waiting", reason="open on this machine since 09:12"), ["waiting: open on this machine since 09:12"]),
        (item("waiting", action="Close it in Crésus."), ["waiting", "→ Close it in Crésus."]),
        (item("conflict"), ["in conflict: there are two versions", "→ See the versions: p2psync conflicts 'Dupont SA'"]),
        (item("conflict", reason="Anna and Bernard changed it"), ["in conflict: Anna and Bernard changed it"]),
        (item("missing"), ["not found on this disk", "p2psync detach 'Dupont SA' 'Dupont 2024.cre'"]),
        (
            item("halted", reason="200 of 210 files vanished"),
            ["halted: 200 of 210 files vanished", "p2psync confirm 'Dupont SA' 'Dupont 2024.cre'"],
        ),
        (item("error", reason="the disk is full", action="Make room."), ["problem: the disk is full", "→ Make room."]),
        (item("hibernating"), ["hibernating"]),
    ],
)
def test_every_state_is_a_sentence_with_its_next_action(attachment: dict[str, Any], sentences: list[str]) -> None:
    said = text(mandate(attachment))
    for sentence in sentences:
        assert sentence in said


def test_since_when_and_who_are_said_when_there_is_no_reason() -> None:
    said = text(mandate(item("waiting", since=1_000_000_000_000, who="Anna")))
    assert "waiting since 9 Sep 2001 (Anna)" in said


def test_what_is_under_way() -> None:
    said = text(mandate(incoming={"files": 3, "bytes": 2_100_000}, outgoing={"files": 1, "bytes": 10}))
    assert "  coming in: 3 files, 2.1 MB\n  going out: 1 file, 10 B" in said
    assert "No files are attached." in said


def test_a_local_mandate_says_that_it_is_local_and_shows_no_participants() -> None:
    people = [{"name": "Anna", "device": "x", "role": "owner", "self": True}]
    said = text(mandate(state="local", participants=people))
    assert "Dupont SA (local, on this machine only)" in said
    assert "Anna" not in said


def test_problems_come_first_with_their_action() -> None:
    said = text(problems=[{"code": "clock", "message": "The clock differs by 3 days.", "action": "Set the clock."}])
    assert "Problem: The clock differs by 3 days.\n  → Set the clock.\n" in said


def test_a_machine_without_mandates_is_told_how_to_begin() -> None:
    assert "p2psync create NAME FILE..." in text()
    assert "p2psync subscribe FILE.crsync" in text()


def test_long_and_hostile_texts_stay_inside_the_lines() -> None:
    hostile = item("error", reason="word " * 60 + "\x1b[2J", who="x" * 64)
    said = text(mandate(hostile, summary="much " * 40))
    assert "\x1b" not in said


def test_what_needs_a_person() -> None:
    assert not needs_person(status(mandate(item("waiting"), item("receiving"), item("sending"))))
    assert needs_person(status(mandate(item("missing"))))
    assert needs_person(status(mandate(item("error"))))
    assert needs_person(status(mandate(), mandate(item("synced"), item("conflict"))))
    assert needs_person(status(mandate(item("halted"))))
    assert needs_person(status(mandate(conflicts=1)))
    assert not needs_person(status(problems=[{"code": "x", "message": "y", "action": "z", "person": False}]))
    assert needs_person(status(problems=[{"code": "x", "message": "y", "action": "z", "person": True}]))
