"""What goes wrong at a desk: each is answered by one sentence that says whose fault it is and what to do, and nothing is changed by it.

Three real daemons: Anna owns “Dupont SA”, in which Bruno is an editor and Rita a reader.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from p2psync.daemon.control import AmbiguousMandate, Control
from p2psync.store.root import Root
from p2psync.store.scan import Changing, Nothing, observe
from p2psync.values.armour import armoured, bared
from p2psync.values.content import Chunk
from tests.office import Office
from tests.story.desks import P2PSYNC, Desk, run, until
from tests.visitor import let_in

ROOT = sys.platform == "linux" and os.geteuid() == 0 and all(map(shutil.which, ("mount", "setpriv")))
needs_root = pytest.mark.skipif(not ROOT, reason="needs root")


@dataclass
class Story:
    """The desks, and what the rows of the table call things: ``{name}`` in their words."""

    anna: Desk
    bruno: Desk
    rita: Desk
    top: Path
    words: dict[str, str] = field(default_factory=dict)

    @cached_property
    def furnished(self) -> dict[str, dict[str, Any]]:
        """Everything, before the first row of the table was tried: each leaves it so."""
        return self.everything()

    def everything(self) -> dict[str, dict[str, Any]]:
        return {one.person: one.everything() for one in self.desks}

    @property
    def desks(self) -> list[Desk]:
        return [self.anna, self.bruno, self.rita]


def mounted(path: Path, options: str) -> bool:
    path.mkdir(parents=True, exist_ok=True)
    return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=False, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    top = tmp_path_factory.mktemp("desks")
    told = Story(Desk("Anna", top / "anna"), Desk("Bruno", top / "bruno"), Desk("Rita", top / "rita"), top)
    mounts = [top / "readonly"] if ROOT and mounted(top / "readonly", "ro") else []
    try:
        for desk in told.desks:
            desk.start()
        for desk in told.desks:
            desk.answers()
        furnish(told)
        yield told
    finally:
        for desk in told.desks:
            desk.stop()
        for mount in mounts:
            subprocess.run(["umount", "-l", str(mount)], check=False, capture_output=True)


def furnish(told: Story) -> None:
    """The mandates, files, tickets and odd things that the rows speak of."""
    anna, top = told.anna, told.top
    files = {
        "books/a.txt": "a", "books/cash.txt": "cash", "loose/bill.txt": "bill", "loose/other.txt": "other", "loose/CON.txt": "x", "loose/a:b.txt": "x",  # noqa: E501
        "loose/dot.": "x", "loose/what?.txt": "x", "loose/Compta.cre": "x", "loose/lower/compta.cre": "x", "mine/martin.txt": "m", "outside.txt": "o",  # noqa: E501
    }  # fmt: skip
    for name, text in files.items():
        (anna.place / name).parent.mkdir(parents=True, exist_ok=True)
        (anna.place / name).write_text(text)
    for name in ("loose/~$bill.txt", "loose/\u00e9.txt", "loose/e\u0301.txt", "loose/\udcff/odd.txt"):
        (anna.place / name).parent.mkdir(exist_ok=True)
        (anna.place / name).write_text("x")
    (anna.place / "link.txt").symlink_to(anna.place / "outside.txt")
    (anna.place / "also").symlink_to(anna.place / "loose")
    os.mkfifo(anna.place / "pipe")
    anna.does("create", "Dupont SA", anna.place / "books", anna.place / "loose/bill.txt", anna.place / "loose/Compta.cre", "--as", "Anna")
    anna.does("create", "Martin", anna.place / "mine/martin.txt")
    anna.does("share", "Dupont SA")
    tickets = top / "stick"
    tickets.mkdir()
    anna.does("invite", "Dupont SA", "--for", "Bruno", "-o", tickets / "bruno.crsync")
    anna.does("invite", "Dupont SA", "--for", "Rita", "--role", "reader", "-o", tickets / "rita.crsync")
    anna.does("invite", "Dupont SA", "--for", "Nobody", "-o", tickets / "open.crsync")
    told.bruno.does("create", "dupont sa", "--folder", told.bruno.place / "own")
    told.bruno.does("subscribe", tickets / "bruno.crsync", "--folder", told.bruno.place / "theirs")
    told.rita.does("subscribe", tickets / "rita.crsync")
    text = (tickets / "open.crsync").read_text()
    lines = text.splitlines(keepends=True)
    (tickets / "cut.crsync").write_text("".join(lines[:12]))
    (tickets / "flipped.crsync").write_text(text.replace(lines[8], lines[8][:10] + ("A" if lines[8][10] != "A" else "B") + lines[8][11:]))
    (tickets / "forged.crsync").write_bytes(forged((tickets / "open.crsync").read_bytes()))
    foreign = Office("Ancienne SA")
    (tickets / "expired.crsync").write_bytes(foreign.invite(foreign.owner))
    (tickets / "letter.crsync").write_text("Chère Madame,\n")
    (tickets / "large.crsync").write_bytes(b"x" * 1_000_000)
    (tickets / "zeros.crsync").write_bytes(bytes(500))
    for desk in told.desks:
        desk.until("both others are there", lambda desk=desk: sum(p["in_sync"] for p in desk.mandate(D)["participants"]) == 3)  # type: ignore[misc]
        desk.until("all files are there", lambda desk=desk: [a["state"] for a in desk.mandate(D)["attachments"]] == ["synced"] * 3)  # type: ignore[misc]
        desk.settled()
    told.words |= {
        "anna": str(anna.place), "bruno": str(told.bruno.place), "rita": str(told.rita.place), "stick": str(tickets), "top": str(top),
        "folder": told.rita.mandate("Dupont SA")["folder"], "version": anna.get("/v1/history?mandate=Dupont+SA&name=books/a.txt")["versions"][0]["version"][:12],  # noqa: E501
    }  # fmt: skip


def forged(text: bytes) -> bytes:
    """A ticket with other bytes in it, and the right checksum around them."""
    raw = bytearray(bared(text))
    raw[60] ^= 1
    return armoured(bytes(raw))


@dataclass(frozen=True)
class Row:
    """Who says what, what the sentence has to name, and the exit code."""

    who: str
    words: list[str]
    names: list[str]
    code: int = 1

    def __str__(self) -> str:
        said = " ".join(self.words[1:] if self.words[0] in ("ticket", "subscribe") else self.words[2:])
        return f"{self.who}-{self.words[0]}-{ascii(said)[1:-1]}".replace("/", "|")[:60]


D = "Dupont SA"
OF_MANDATES = [
    Row("anna", ["status", "Durand"], ["no mandate “Durand”", "p2psync mandates"]),
    Row("anna", ["attach", "Durand", "{anna}/outside.txt"], ["no mandate “Durand”", "p2psync mandates"]),
    Row("anna", ["share", "zzzz"], ["no mandate “zzzz”"]),
    Row("anna", ["status", ""], ["no mandate “”", "p2psync mandates"]),
    Row("bruno", ["history", "DUPONT SA"], ["could be", "“dupont sa” (", "“Dupont SA” (", "more of the id"]),
    Row("anna", ["create", "  "], ["name", "empty", "Choose another"]),
    Row("anna", ["create", "é" * 65], ["longer than 128 bytes", "Choose another"]),
    Row("anna", ["create", "Dupont\u200b SA"], ["invisible characters", "\\u200b"]),
    Row("anna", ["create", "DUPONT sa"], ["“DUPONT sa”", "already", "another name", "nothing was changed"]),
    Row("anna", ["create", "Neu", "{anna}/nowhere.txt"], ["nothing at “{anna}/nowhere.txt”", "Check the name"]),
    Row("anna", ["create", "Neu", "{anna}/outside.txt", "{anna}/loose/CON.txt"], ["CON.txt", "Windows", "Rename"]),
    Row("anna", ["create", "Neu", "--folder", "{anna}/state/files"], ["p2psync keeps for itself", "--folder"]),
    Row("anna", ["create", "Neu", "--folder", "{anna}/books/neu"], ["“Dupont SA”", "--folder", "nothing was changed"]),
    Row("anna", ["create", "Neu", "--folder", "{anna}/outside.txt/neu"], ["{anna}/outside.txt/neu", "--folder", "nothing was changed"]),
    Row("anna", ["create", "Neu", "--as", " "], ["empty", "Choose another"]),
    Row("anna", ["create", "Neu", "--as", "A" * 65], ["longer than 64 bytes"]),
]
OF_ATTACHING = [
    Row("anna", ["attach", D, "{anna}/nowhere.txt"], ["nothing at “{anna}/nowhere.txt”", "Check the name"]),
    Row("anna", ["attach", D, "{anna}/outside.txt", "{anna}/nowhere.txt"], ["nowhere.txt", "nothing was changed"]),
    Row("anna", ["attach", D, "{anna}/loose/bill.txt"], ["already attached", "“Dupont SA”", "Nothing was changed"]),
    Row("anna", ["attach", D, "{anna}/also/bill.txt"], ["already attached", "“Dupont SA”", "Nothing was changed"]),
    Row("anna", ["attach", D, "{anna}/books/a.txt"], ["already attached", "inside “books”"]),
    Row("anna", ["attach", D, "{anna}/loose"], ["contains “{anna}/loose/", "attached to “Dupont SA” already", "Detach that first"]),
    Row("anna", ["attach", D, "{anna}/outside.txt", "{anna}/outside.txt"], ["{anna}/outside.txt", "named twice", "nothing was changed"]),
    Row(
        "anna",
        ["attach", D, "{anna}/loose/lower", "{anna}/loose/lower/compta.cre"],
        ["compta.cre” is inside “", "lower”, which you named as well", "only one"],
    ),
    Row("anna", ["attach", D, "{anna}/state"], ["p2psync keeps for itself", "Attach something else"]),
    Row("anna", ["attach", D, "{anna}/state/device.key"], ["p2psync keeps for itself", "Attach something else"]),
    Row("anna", ["attach", D, "{anna}"], ["p2psync keeps for itself, or contains it"]),
    Row("anna", ["attach", "Martin", "{anna}/loose/bill.txt"], ["“Dupont SA”", "one mandate only", "Detach it there first"]),
    Row("anna", ["attach", "Martin", "{anna}/books/cash.txt"], ["“Dupont SA”", "one mandate only"]),
    Row("anna", ["attach", D, "{anna}/mine"], ["contains “{anna}/mine/martin.txt”", "“Martin”"]),
    Row("anna", ["attach", D, "{anna}/link.txt"], ["is a link", "Attach the file or folder itself"]),
    Row("anna", ["attach", D, "{anna}/pipe"], ["only files and folders can be attached"]),
    Row("anna", ["attach", D, "/dev/null"], ["only files and folders can be attached"]),
    Row("anna", ["attach", D, "/"], ["contains"]),
    Row("anna", ["attach", D, "{anna}/loose/CON.txt"], ["CON.txt", "Windows keeps this name", "Rename"]),
    Row("anna", ["attach", D, "{anna}/loose/a:b.txt"], ["a:b.txt", "Windows cannot store", "Rename"]),
    Row("anna", ["attach", D, "{anna}/loose/what?.txt"], ["what?.txt", "Windows cannot store", "Rename"]),
    Row("anna", ["attach", D, "{anna}/loose/dot."], ["dot.", "ends with a dot", "Rename"]),
    Row("anna", ["attach", D, "{anna}/loose/lower/compta.cre"], ["“compta.cre”", "“Compta.cre”", "case or accents", "Rename one"]),
    Row("anna", ["attach", D, "{anna}/loose/\u00e9.txt", "{anna}/loose/e\u0301.txt"], ["case or accents", "Rename one"]),
    Row("anna", ["attach", D, "{anna}/loose/~$bill.txt"], ["“~$bill.txt”", "makes for itself", "Attach the document itself"]),
    Row("anna", ["attach", D, "{anna}/loose/\udcff/odd.txt"], ["\\udcff", "not valid Unicode", "Rename"]),
    Row("anna", ["create", "Neu", "--folder", "{anna}/loose/\udcff/neu"], ["\\udcff", "not valid Unicode", "Rename"]),
    Row("anna", ["detach", D, "nothing.txt"], ["Nothing called “nothing.txt”", "p2psync status"]),
    Row("anna", ["detach", D, "books/a.txt"], ["books/a.txt", "part of the attached folder “books”"]),
    Row("rita", ["attach", D, "{rita}/state/../new.txt"], ["reader", "Ask"]),
    Row("rita", ["detach", D, "books"], ["reader", "Ask"]),
]
OF_TICKETS = [
    Row("anna", ["invite", "Martin", "--for", "Bruno", "-o", "{stick}/m.crsync"], ["local", "p2psync share"]),
    Row("anna", ["invite", D, "--for", "X", "--role", "boss", "-o", "{stick}/n.crsync"], ["boss", "editor", "reader"], 2),
    Row("anna", ["invite", D, "--for", "X", "--expires", "soon", "-o", "{stick}/n.crsync"], ["“soon”", "12h or 7d"], 2),
    Row("anna", ["invite", D, "--for", "X", "--expires", "0d", "-o", "{stick}/n.crsync"], ["“0d”", "12h or 7d"], 2),
    Row("anna", ["invite", D, "--for", "X", "--expires", "91d", "-o", "{stick}/n.crsync"], ["90 days"]),
    Row("anna", ["invite", D, "--for", "", "-o", "{stick}/n.crsync"], ["empty"]),
    Row("anna", ["invite", D, "--for", "X" * 65, "-o", "{stick}/n.crsync"], ["longer than 64 bytes"]),
    Row("anna", ["invite", D, "--for", "X", "-o", "{stick}/open.crsync"], ["exists already", "not overwritten", "-o"]),
    Row("anna", ["invite", D, "--for", "X", "-o", "{anna}/books/x.crsync"], ["“Dupont SA”", "would be shared", "USB stick"]),
    Row("anna", ["invite", D, "--for", "X", "-o", "{anna}/nowhere/x.crsync"], ["cannot be written", "Choose another place"]),
    Row("bruno", ["invite", D, "--for", "X", "-o", "{stick}/n.crsync"], ["Only an owner", "Ask Anna"]),
    Row("rita", ["ticket", "{stick}/nowhere.crsync"], ["{stick}/nowhere.crsync", "cannot be read"]),
    Row("rita", ["ticket", "{stick}"], ["cannot be read"]),
    Row("rita", ["ticket", "{stick}/cut.crsync"], ["damaged", "Copy it once more"]),
    Row("rita", ["ticket", "{stick}/flipped.crsync"], ["damaged", "Copy it once more"]),
    Row("rita", ["ticket", "{stick}/forged.crsync"], ["Do not use it"]),
    Row("rita", ["subscribe", "{stick}/cut.crsync"], ["damaged", "Copy it once more"]),
    Row("rita", ["subscribe", "{stick}/flipped.crsync"], ["damaged", "Copy it once more"]),
    Row("rita", ["subscribe", "{stick}/forged.crsync"], ["Do not use it"]),
    Row("rita", ["subscribe", "{stick}/letter.crsync"], ["not a ticket", ".crsync"]),
    Row("rita", ["subscribe", "{stick}/zeros.crsync"], ["not a ticket"]),
    Row("rita", ["subscribe", "{stick}/large.crsync"], ["not a ticket", "longer"]),
    Row("rita", ["subscribe", "/dev/null"], ["not a ticket"]),
    Row("rita", ["subscribe", "{stick}/expired.crsync"], ["expired on 2025-", "Ask Olga"]),
    Row("rita", ["subscribe", "{stick}/open.crsync"], ["“Dupont SA”", "already", "for another machine", "nothing was changed"]),
    Row("anna", ["subscribe", "{stick}/bruno.crsync"], ["“Dupont SA”", "already"]),
    Row("bruno", ["promote", D, "Rita"], ["Only an owner of “Dupont SA”"]),
    Row("anna", ["promote", D, "Anna", "--role", "editor"], ["Anna is an owner of “Dupont SA”", "cannot be taken back"]),
    Row("anna", ["promote", D, "Bruno", "--role", "boss"], ["“boss”", "owner or editor"], 2),
    Row("anna", ["promote", D, "Zoé"], ["Nobody called “Zoé” takes part", "p2psync participants"]),
]
OF_VERSIONS = [
    Row("anna", ["resolve", D, "books/a.txt", "--keep", "mine"], ["no conflict about “books/a.txt”", "p2psync conflicts"]),
    Row("anna", ["resolve", D, "books/z.txt", "--keep", "both"], ["“books/z.txt” is not in “Dupont SA”"]),
    Row("anna", ["resolve", D, "books/a.txt", "--keep", "yours"], ["“yours”", "mine", "theirs", "both"], 2),
    Row("rita", ["resolve", D, "books/a.txt", "--keep", "mine"], ["reader", "Ask Anna"]),
    Row("anna", ["restore", D, "books/a.txt", "--version", "00000000"], ["no version “00000000”", "p2psync history"]),
    Row("anna", ["restore", D, "books/a.txt", "--version", "latest"], ["“latest” is no version", "p2psync history"], 2),
    Row("anna", ["restore", D, "books/z.txt", "--version", "00000000"], ["“books/z.txt” is not in", "never was"]),
    Row("anna", ["restore", D, "../a", "--version", "00000000"], ["“../a” is not in"]),
    Row("anna", ["restore", D, "books/a.txt", "--version", "{version}", "--to", "{anna}/outside.txt"], ["exists already", "another place"]),
    Row(
        "anna",
        ["restore", D, "books/a.txt", "--version", "{version}", "--to", "{anna}/none/a.txt"],
        ["{anna}/none", "folder", "nothing was changed"],
    ),
    Row("anna", ["history", D, "books/z.txt"], ["“books/z.txt” is not in “Dupont SA”"]),
    Row("anna", ["confirm", D, "halt"], ["Nothing", "waits for a confirmation", "“Dupont SA”"]),
    Row("anna", ["confirm", D, "books"], ["“books”", "waits for a confirmation"]),
]


@pytest.mark.parametrize("row", [*OF_MANDATES, *OF_ATTACHING, *OF_TICKETS, *OF_VERSIONS], ids=str)
def test_one_sentence_and_nothing_changed(story: Story, row: Row) -> None:
    refused(story, getattr(story, row.who), row.words, row.names, row.code, story.furnished)


def refused(
    story: Story, desk: Desk, words: list[str], names: list[str], code: int = 1, before: dict[str, dict[str, Any]] | None = None
) -> None:
    before = before or story.everything()
    stick = sorted(os.listdir(story.top / "stick"))
    said = desk.says(*(word.format_map(story.words) for word in words))
    after = story.everything()
    assert said.code == code, said
    check_sentence(said.err, [name.format_map(story.words) for name in names], usage=code == 2)
    assert not said.out
    for person in before:
        for kind, was in before[person].items():
            assert after[person][kind] == was, f"{kind} at {person}’s desk"
    assert sorted(os.listdir(story.top / "stick")) == stick


def check_sentence(err: str, names: list[str], usage: bool = False) -> None:
    """One line that a person can read, which names these things."""
    lines = err.strip().splitlines()
    assert usage or len(lines) == 1, err
    last = lines[-1]
    assert (last.startswith("p2psync") and (last.endswith((".", ":22088", ")")) or ": p2psync " in last)) or usage, last
    for word in ("Traceback", "Errno", "None", "Error:", "object at", "inside p2psync", "inside the daemon"):
        assert word not in err, err
    for name in names:
        assert name in last, f"“{name}” is not in: {last}"


def test_no_byte_of_a_ticket_can_be_changed(story: Story, tmp_path: Path) -> None:
    text, before = (story.top / "stick/open.crsync").read_bytes(), story.rita.everything()
    good = story.rita.does("ticket", story.top / "stick/open.crsync")
    raw, file = bared(text), tmp_path / "x.crsync"
    for at in range(0, len(raw), 97):
        file.write_bytes(armoured(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]))
        said = story.rita.says("subscribe", file)
        assert said.code == 1, at
        check_sentence(said.err, ["icket"])
    for at in range(0, len(text), 97):  # what surrounds the ticket in its file is only there for people
        file.write_bytes(text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :])
        said = story.rita.says("ticket", file)
        assert said.code == 1 or said.out == good, at
    assert story.rita.everything() == before


# ---- the same with other machines


def test_a_ticket_that_was_used_lets_nobody_else_in(story: Story, tmp_path: Path) -> None:
    carla = Desk("Carla", tmp_path / "carla").start().answers()
    try:
        before = carla.everything()
        said = carla.says("subscribe", story.top / "stick/bruno.crsync")
        assert said.code == 1
        check_sentence(said.err, ["used", "new"])
        after = carla.everything()
        assert after["state"] == before["state"] and after["disk"] == before["disk"] and not after["status"]["mandates"]
        assert not story.anna.mandate(D).get("conflicts") and len(story.anna.mandate(D)["participants"]) == 3
        taken = carla.place / "taken"
        carla.does("create", "Eigenes", "--folder", taken)
        (carla.place / "file.txt").write_text("x")
        for folder, names in ((taken, ["“Eigenes”", "--folder"]), (taken / "in", ["“Eigenes”"]), (carla.place / "file.txt", ["it is a file"]),  # noqa: E501
                              (carla.state, ["keeps for itself"])):  # fmt: skip
            refused(
                Story(carla, carla, carla, story.top),
                carla,
                ["subscribe", str(story.top / "stick/open.crsync"), "--folder", str(folder)],
                names,
            )
        (carla.place / "link").symlink_to(taken)
        refused(
            Story(carla, carla, carla, story.top),
            carla,
            ["subscribe", str(story.top / "stick/open.crsync"), "--folder", str(carla.place / "link")],
            ["“Eigenes”"],
        )
        if ROOT:
            for place in (story.top / "readonly", story.top / "readonly/new"):
                refused(
                    Story(carla, carla, carla, story.top),
                    carla,
                    ["subscribe", str(story.top / "stick/open.crsync"), "--folder", str(place)],
                    ["read-only", "--folder"],
                )
    finally:
        carla.stop()


def test_what_a_reader_changes_is_shown_and_stays_there(story: Story) -> None:
    mine = Path(story.words["folder"]) / "books/cash.txt"
    was = mine.read_bytes()
    mine.write_text("changed by Rita")
    try:
        shown = story.rita.until(
            "says so",
            lambda: story.rita.attention(D).get("books/cash.txt", {}).get("code") == "reader" and story.rita.attention(D)["books/cash.txt"],
        )
        assert (
            "reader" in shown["reason"]
            and "not shared" in shown["reason"]
            and "Anna" in shown["action"]
            and "restore" in shown["commands"][0]
        )
        (mine.parent / "new.txt").write_text("new by Rita")
        story.rita.until("says so", lambda: story.rita.attention(D).get("books/new.txt", {}).get("code") == "reader-new")
        assert (story.anna.place / "books/cash.txt").read_bytes() == was
        assert not (story.anna.place / "books/new.txt").exists()
        assert "not shared" in story.rita.does("status", code=4)
    finally:
        (mine.parent / "new.txt").unlink(missing_ok=True)
        mine.write_bytes(was)
        story.rita.until("all is well", lambda: not story.rita.attention(D))


def test_names_that_cannot_travel_are_named_and_the_others_do(story: Story) -> None:
    books, theirs = story.anna.place / "books", story.bruno.place / "theirs/books"
    bad = {"CON.txt": "Windows keeps", "what?.txt": "Windows cannot", "end.": "dot"}
    pairs = ("Liste.txt", "liste.txt")
    made = [books / name for name in (*bad, *pairs, "good.txt")]
    for path in made:
        path.write_text(path.name)
    (books / "shortcut").symlink_to(books / "a.txt")
    try:
        story.bruno.until("has the good one", (theirs / "good.txt").exists)
        for name, why in bad.items():
            shown = story.anna.until(f"{name} is named", lambda name=name: story.anna.attention(D).get(f"books/{name}"))  # type: ignore[misc]
            assert shown["state"] == "error" and why in shown["reason"] and "Rename" in f"{shown['reason']} {shown['action']}"
        for one in ("Liste.txt",):
            story.anna.until(f"{one} collides", lambda one=one: any(  # type: ignore[misc]
                a["code"] == "name-collision" and one.casefold() in a["reason"].casefold() and "Rename" in a["action"] for a in story.anna.attention(D).values()  # noqa: E501
            ))  # fmt: skip
        story.anna.until("the link is named", lambda: story.anna.attention(D).get("books/shortcut"))
        assert not any((theirs / name).exists() for name in (*bad, "shortcut"))
        assert sum((theirs / name).exists() for name in pairs) <= 1
    finally:
        for path in (*made, books / "shortcut"):
            path.unlink()
        for desk in story.desks:
            desk.until("all is well", lambda desk=desk: not desk.attention(D))  # type: ignore[misc]
        story.bruno.until("the good one is gone", lambda: not (theirs / "good.txt").exists())


def test_two_unicode_spellings_of_one_name_are_named(story: Story) -> None:
    made = [story.anna.place / "books" / name for name in ("caf\u00e9.txt", "cafe\u0301.txt")]
    for path in made:
        path.write_text(ascii(path.name))
    try:
        story.anna.until("says so", lambda: any(a["code"] == "name-collision" for a in story.anna.attention(D).values()), 4)
    finally:
        for path in made:
            path.unlink()
        for desk in story.desks:
            desk.until("all is well", lambda desk=desk: not desk.attention(D) and not list(desk.place.rglob("books/caf*")))  # type: ignore[misc]


def test_a_file_that_another_name_held_up_goes_when_that_is_renamed(story: Story) -> None:
    books, theirs = story.anna.place / "books", story.bruno.place / "theirs/books"
    (books / "Rent.txt").write_text("first")
    try:
        story.bruno.until("has the first", (theirs / "Rent.txt").exists)
        (books / "rent.txt").write_text("second")
        story.anna.until("names the second", lambda: story.anna.attention(D).get("books/rent.txt", {}).get("code") == "name-collision")
        (books / "Rent.txt").rename(books / "Rent 2025.txt")
        story.bruno.until("has both", lambda: (theirs / "rent.txt").exists() and (theirs / "Rent 2025.txt").exists())
        assert (theirs / "rent.txt").read_text() == "second"
        story.anna.until("all is well", lambda: not story.anna.attention(D))
        story.anna.settled()
        assert story.anna.attachment(D, "books")["files"] == 4
        assert " 4 files, " in story.anna.does("status", D)
    finally:
        for name in ("Rent.txt", "rent.txt", "Rent 2025.txt"):
            (books / name).unlink(missing_ok=True)
        story.bruno.until("both are gone", lambda: not list(theirs.glob("[Rr]ent*")))


def test_a_reader_who_becomes_an_editor_shares_what_had_waited(story: Story) -> None:
    waits = Path(story.words["folder"]) / "books/by rita.txt"
    waits.write_text("by Rita")
    story.rita.until("says so", lambda: story.rita.attention(D).get("books/by rita.txt", {}).get("code") == "reader-new")
    assert "Rita is now an editor" in story.anna.does("promote", D, "Rita", "--role", "editor")
    story.bruno.until("has it", (story.bruno.place / "theirs/books/by rita.txt").exists)
    story.rita.until("all is well", lambda: not story.rita.attention(D))


@needs_root
def test_a_full_disk_is_named_and_the_file_goes_in_when_room_is_made(story: Story, tmp_path: Path) -> None:
    small = tmp_path / "small"
    if not mounted(small, "size=600k"):
        pytest.skip("nothing can be mounted here")
    desk = Desk("Dora", tmp_path / "dora").start().answers()
    try:
        story.anna.does("invite", D, "--for", "Dora", "-o", tmp_path / "dora.crsync")
        desk.does("subscribe", tmp_path / "dora.crsync", "--folder", small / "books")
        ballast, big = small / "ballast", story.anna.place / "books/big.bin"
        ballast.write_bytes(os.urandom(400_000))
        data = os.urandom(300_000)
        big.write_bytes(data)
        shown = desk.until(
            "says that the disk is full",
            lambda: desk.attention(D).get("books/big.bin", {}).get("code") == "space-short" and desk.attention(D)["books/big.bin"],
        )
        assert "has only" in shown["reason"] and "room" in shown["action"], shown
        arrived = next((small / "books").rglob("a.txt")).with_name("big.bin")
        assert not arrived.exists()
        ballast.unlink()
        desk.does("wait", D, "--timeout", "20")  # tries again at once what failed
        desk.until("it goes in", lambda: arrived.exists() and arrived.read_bytes() == data, 40)
        desk.until("all is well", lambda: not desk.attention(D))
    finally:
        desk.stop()
        subprocess.run(["umount", "-l", str(small)], check=False, capture_output=True)


@needs_root
def test_a_daemon_whose_own_disk_is_full_says_so(tmp_path: Path) -> None:
    small = tmp_path / "small"
    if not mounted(small, "size=64k"):
        pytest.skip("nothing can be mounted here")
    try:
        (small / "state").mkdir(mode=0o700)
        (small / "ballast").write_bytes(bytes(60_000))
        words = [
            *P2PSYNC,
            "run",
            "--home",
            str(small / "state"),
            "--socket",
            str(tmp_path / "s"),
            "--interface",
            "lo",
            "--listen",
            "127.0.0.1:0",
        ]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=Path.cwd())
        try:
            until("it answers or has ended", lambda: (tmp_path / "s").exists() or process.poll() is not None)
            if process.poll() is None:
                said = run("create", "Neu", "--home", small / "state", "--socket", tmp_path / "s", "--folder", tmp_path / "f")
                assert said.code == 1
                check_sentence(said.err, ["full", "Make room"])
                assert not (tmp_path / "f").exists()
                (small / "ballast").unlink()
                subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
                assert run("create", "Neu", "--home", small / "state", "--socket", tmp_path / "s", "--folder", tmp_path / "f").code == 0
            else:
                check_sentence((tmp_path / "log").read_text(), ["full", "Make room"])
        finally:
            process.terminate()
            process.wait(15)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False, capture_output=True)


# ---- no daemon, another one, a strange one


EVERY_COMMAND = (
    ["status"], ["mandates"], ["create", "X"], ["attach", "X", "/tmp"], ["detach", "X", "a"], ["share", "X"], ["invite", "X", "--for", "Y"], ["participants", "X"],  # noqa: E501
    ["promote", "X", "Y"], ["conflicts"], ["resolve", "X", "a", "--keep", "mine"], ["history", "X"], ["restore", "X", "a", "--version", "0000"], ["confirm", "X", "a"],  # noqa: E501
    ["wait"],
)  # fmt: skip


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=lambda words: words[0])
def test_without_a_daemon_every_command_says_how_to_start_one(tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = run(*words, "--home", tmp_path / "none")
    assert said.code == 3 and not said.out
    assert "No p2psync daemon answers" in said.err and "p2psync run" in said.err and len(said.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@needs_root
def test_whoever_may_not_open_the_socket_is_told_whom_to_ask(story: Story) -> None:
    let_in(story.anna.place)
    words = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", sys.executable, "-c",
             "import socket, sys\ntry: socket.socket(socket.AF_UNIX).connect(sys.argv[1])\nexcept OSError as e: sys.exit(e.errno)", str(story.anna.socket)]  # fmt: skip  # noqa: E501
    if subprocess.run(words, check=False, capture_output=True).returncode != 13:
        pytest.skip("nobody cannot run python here")
    client = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *P2PSYNC, "status", "--socket", str(story.anna.socket)]
    done = subprocess.run(
        client,
        check=False,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path), "LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
    )
    if "ModuleNotFoundError" in done.stderr or "PermissionError" in done.stderr:
        pytest.skip("nobody may not read the program here")
    assert done.returncode == 1
    check_sentence(done.stderr, ["may not use", "add you to the group"])


def daemon(home: Path, *options: str) -> tuple[int, str]:
    """A daemon that cannot start: its exit code and what it says."""
    said = run("run", "--home", home, "--socket", home.parent / "s", "--interface", "lo", "--no-mdns", *options)
    return said.code, said.err


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = daemon(tmp_path / "home", "--listen", f"127.0.0.1:{port}")
    assert code == 1
    check_sentence(said, [str(port), "in use by another program", "--listen"])
    assert not (tmp_path / "s").exists()


def test_a_second_daemon_on_the_same_home(story: Story) -> None:
    before = story.anna.everything()
    code, said = daemon(story.anna.state, "--listen", "127.0.0.1:0")
    assert code == 1
    check_sentence(said, ["Another p2psync", str(story.anna.process.pid if story.anna.process else ""), "--home"])
    assert story.anna.everything() == before


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--listen", "here"], ["“here”", "22088"]),
        (["--listen", "127.0.0.1:99999"], ["“127.0.0.1:99999”", "22088"]),
        (["--listen", "desk.local:22088"], ["“desk.local:22088”", "22088"]),
        (["--listen", "203.0.113.7:22088"], ["203.0.113.7", "--listen"]),
        (["--peer", "desk"], ["“desk”", "22088"]),
        (["--peer", ":22088"], ["“:22088”", "22088"]),
        (["--peer", "desk:0"], ["“desk:0”", "22088"]),
    ],
)
def test_an_address_that_is_none(tmp_path: Path, options: list[str], names: list[str]) -> None:
    code, said = daemon(tmp_path / "home", *options)
    assert code == 1
    check_sentence(said, names)


def test_a_network_interface_that_is_not_there(tmp_path: Path) -> None:
    desk = Desk("Dora", tmp_path / "dora").start("--interface", "eth99", "--no-mdns").answers()
    try:
        found = desk.until("a problem", lambda: [p for p in desk.status()["problems"] if p["code"] == "interface-missing"])
        assert "“eth99”" in found[0]["message"] and "Plug it in" in found[0]["action"]
        assert "Problem: " in desk.does("status")
    finally:
        desk.stop()


def test_a_home_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    code, said = daemon(tmp_path / "file", "--listen", "127.0.0.1:0")
    assert code == 1
    check_sentence(said, [str(tmp_path / "file")])
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff" * 400, b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/create HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{\"na",  # noqa: E501
        b"POST /v1/create HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", b"GET /v1/status?mandate=%ff%00 HTTP/1.1\r\nHost: x\r\n\r\n",  # noqa: E501
        b"POST /v1/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]", b"POST /v1/create HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{\"name\": \"\\u0000\"}",  # noqa: E501
        b"POST /v1/invite HTTP/1.1\r\nHost: x\r\nContent-Length: 52\r\n\r\n{\"mandate\":\"Dupont SA\",\"for\":\"X\",\"expires_s\":true   }",
        b"POST /v1/wait HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\n{\"timeout_s\": NaN}", b"POST /v1/wait HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n{\"timeout_s\": -1}",  # noqa: E501
    ],
)  # fmt: skip
def test_garbage_on_the_socket_is_refused_and_changes_nothing(story: Story, garbage: bytes) -> None:
    before = story.anna.everything()
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(5)
        raw.connect(str(story.anna.socket))
        raw.sendall(garbage)
        raw.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while more := raw.recv(65536):
                answer += more
        except ConnectionError:
            pass
    assert b" 200 " not in answer.partition(b"\r\n")[0] or b'"agreed"' in answer, answer
    assert b" 500 " not in answer.partition(b"\r\n")[0], answer
    assert story.anna.everything() == before


# ---- single pieces


def test_an_id_that_two_mandates_begin_with() -> None:
    mandates = {n: SimpleNamespace(id=bytes.fromhex("abcd" + n), books=SimpleNamespace(name=f"M{n}")) for n in ("01", "02")}
    control = Control(SimpleNamespace(mandates=mandates))  # type: ignore[arg-type]
    with pytest.raises(
        AmbiguousMandate, match=r"“ABCD” could be “M01” \(abcd01\) or “M02” \(abcd02\)\. Give the whole name, or more of the id"
    ):
        control._mandate("ABCD")
    assert control._mandate("abcd01") is mandates["01"]


def test_a_file_that_goes_while_it_is_read_is_looked_at_again(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(os.urandom(100_000))

    def goes(chunk: Chunk, data: Any) -> None:
        path.unlink(missing_ok=True)

    assert isinstance(observe(Root(tmp_path), ("a.txt",), None, 0, goes), Changing)
    assert isinstance(observe(Root(tmp_path), ("a.txt",), None, 0), Nothing)
