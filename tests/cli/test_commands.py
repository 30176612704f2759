"""Every command: what it asks the daemon, what it prints, and with which code it ends."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from p2psync.edge.http import Download, Request, refusal
from p2psync.values.errors import BadName

CALM = {"device": {"id": "cd", "name": "Compta-PC"}, "version": "1", "port": 1, "problems": [], "mandates": []}


def mandate(**more: Any) -> dict[str, Any]:
    return {
        "id": "ab" * 32,
        "name": "Dupont SA",
        "state": "shared",
        "folder": None,
        "summary": "",
        "attachments": [],
        "participants": [],
    } | more


# -- acts: the words become a request, the daemon's sentence is printed


@pytest.mark.parametrize(
    ("words", "path", "body"),
    [
        (["attach", "Dupont", "a.cre", "/abs/../b"], "/v1/attach", {"mandate": "Dupont", "paths": ["HERE/a.cre", "/b"]}),
        (["detach", "Dupont", "a.cre"], "/v1/detach", {"mandate": "Dupont", "name": "a.cre"}),
        (["create", "Dupont"], "/v1/create", {"name": "Dupont", "paths": [], "folder": None, "as": None}),
        (
            ["create", "Dupont", "--folder", "b/", "a", "--as", "Anna"],
            "/v1/create",
            {"name": "Dupont", "paths": ["HERE/a"], "folder": "HERE/b", "as": "Anna"},
        ),
        (["share", "Dupont"], "/v1/share", {"mandate": "Dupont"}),
        (["promote", "Dupont", "Anna"], "/v1/promote", {"mandate": "Dupont", "for": "Anna", "role": "owner"}),
        (["promote", "Dupont", "--role", "editor", "Anna"], "/v1/promote", {"mandate": "Dupont", "for": "Anna", "role": "editor"}),
        (["confirm", "Dupont", "halt"], "/v1/confirm", {"mandate": "Dupont", "name": "halt"}),
        (["resolve", "Dupont", "a.cre", "--keep", "both"], "/v1/resolve", {"mandate": "Dupont", "name": "a.cre", "keep": "both"}),
        (["resolve", "Dupont", "a.cre", "--keep", "3FA9C1D2"], "/v1/resolve", {"mandate": "Dupont", "name": "a.cre", "keep": "3fa9c1d2"}),
        (
            ["restore", "Dupont", "a.cre", "--version", "3fa9c1d2"],
            "/v1/restore",
            {"mandate": "Dupont", "name": "a.cre", "version": "3fa9c1d2"},
        ),
        (["restore", "Dupont", "a.cre"], "/v1/restore", {"mandate": "Dupont", "name": "a.cre", "version": None}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_act(daemon, p2psync, words: list[str], path: str, body: dict[str, Any]) -> None:
    daemon.answers[path] = {"message": "It is done."}
    said = p2psync(*words)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("It is done.\n")
    expected = json.loads(json.dumps(body).replace("HERE", str(Path.cwd())))
    assert daemon.acts == [(path, expected)]


@pytest.mark.parametrize("words", [["share", "X"], ["attach", "X", "y"], ["wait"], ["history", "X"], ["status", "X"], ["ticket", "t"]])
def test_a_refusal_is_one_sentence_and_code_1(daemon, p2psync, words: list[str]) -> None:
    Path("t").write_text("x")
    for path in ("/v1/share", "/v1/attach", "/v1/wait", "/v1/history", "/v1/status", "/v1/ticket"):
        daemon.answers[path] = BadName(name="X", why="it is taken")
    said = p2psync(*words)
    assert (said.code, said.out) == (1, "")
    assert said.err == "p2psync: The name “X” cannot be used: it is taken. Choose another one.\n"


def test_a_path_that_is_no_unicode_reaches_the_daemon_unharmed(daemon, p2psync) -> None:
    daemon.answers["/v1/attach"] = {}
    assert p2psync("attach", "Dupont", "caf\udce9.cre").code == 0
    assert daemon.acts[0][1]["paths"] == [str(Path.cwd() / "caf\udce9.cre")]


def test_create_and_share_say_how_to_go_on(daemon, p2psync) -> None:
    daemon.answers |= {"/v1/create": {"message": "Created “Dupont SA”."}, "/v1/share": {"message": "Shared “Dupont SA”."}}
    assert "p2psync share 'Dupont SA'" in p2psync("create", "Dupont SA").out
    assert "p2psync invite 'Dupont SA' --for NAME" in p2psync("share", "Dupont SA").out


# -- a version written elsewhere


class Bytes:
    """What a daemon has of a version, in pieces; ``size`` is what it announces."""

    def __init__(self, *pieces: bytes, size: int | None = None) -> None:
        self.pieces = pieces
        self.size = sum(map(len, pieces)) if size is None else size

    def __call__(self, request: Request) -> Download:
        async def pieces() -> AsyncGenerator[bytes, None]:
            for piece in self.pieces:
                yield piece

        return Download(self.size, pieces())


def test_a_version_is_written_by_whoever_asks_for_it(daemon, p2psync) -> None:
    daemon.answers["/v1/content"] = Bytes(b"cash: ", b"420\n" * 500_000)
    said = p2psync("restore", "Dupont & Cie", "a.cre", "--version", "3FA9C1D2", "--to", "old.cre")
    assert (said.code, said.err) == (0, "")
    assert said.out == f"That version of “a.cre” was written to {Path('old.cre').absolute()}.\n"
    assert Path("old.cre").read_bytes() == b"cash: " + b"420\n" * 500_000
    assert daemon.asked[0].query == {"mandate": "Dupont & Cie", "name": "a.cre", "version": "3fa9c1d2"}
    assert daemon.acts == []


def test_an_empty_version_is_written(daemon, p2psync) -> None:
    daemon.answers["/v1/content"] = Bytes()
    assert p2psync("restore", "Dupont", "a.cre", "--to", "old.cre").code == 0
    assert Path("old.cre").read_bytes() == b""
    assert daemon.asked[0].query == {"mandate": "Dupont", "name": "a.cre"}


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (BadName(name="X", why="it is taken"), "The name “X” cannot be used"),
        (Bytes(b"cash: 4", size=10), "nothing was kept of it"),
        ({"message": "what is this?"}, "does not speak as a p2psync daemon does"),
    ],
)
def test_a_version_that_does_not_come_leaves_no_file(daemon, p2psync, answer: Any, sentence: str) -> None:
    daemon.answers["/v1/content"] = answer
    said = p2psync("restore", "Dupont", "a.cre", "--to", "old.cre")
    assert said.code != 0
    assert sentence in said.err
    assert not Path("old.cre").exists()


def test_a_version_overwrites_nothing(daemon, p2psync) -> None:
    Path("old.cre").write_text("mine")
    said = p2psync("restore", "Dupont", "a.cre", "--to", "old.cre")
    assert (said.code, daemon.asked) == (1, [])
    assert "exists already" in said.err
    assert Path("old.cre").read_text() == "mine"


def test_a_version_for_which_there_is_no_folder(daemon, p2psync) -> None:
    said = p2psync("restore", "Dupont", "a.cre", "--to", "none/old.cre")
    assert said.code == 1
    assert f"there is no folder “{Path('none').absolute()}”" in said.err


# -- status


def test_status(daemon, p2psync) -> None:
    daemon.answers["/v1/status"] = CALM | {"mandates": [mandate()]}
    said = p2psync("status", "Dupont & Cie/é")
    assert said.code == 0
    assert "Dupont SA (shared)" in said.out
    assert daemon.asked[0].query == {"mandate": "Dupont & Cie/é"}
    p2psync("status")
    assert daemon.asked[1].query == {}


def test_status_as_json_is_what_the_daemon_said(daemon, p2psync) -> None:
    status = CALM | {"mandates": [mandate(name="Café\x1b")]}
    daemon.answers["/v1/status"] = status
    said = p2psync("status", "--json")
    assert json.loads(said.out) == status
    assert said.out.isascii()
    assert "\x1b" not in said.out


@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize("state", ["conflict", "halted"])
def test_status_ends_with_4_when_somebody_must_decide(daemon, p2psync, form: list[str], state: str) -> None:
    daemon.answers["/v1/status"] = CALM | {"mandates": [mandate(attachments=[{"name": "a", "kind": "file", "state": state}])]}
    assert p2psync("status", *form).code == 4


# -- lists


def test_mandates(daemon, p2psync) -> None:
    daemon.answers["/v1/mandates"] = {
        "mandates": [{"id": "abcdef0123", "name": "Dupont SA", "state": "shared", "folder": "/b", "role": "owner"}]
    }
    said = p2psync("mandates")
    assert said.out == "Dupont SA  abcdef01  shared  owner, /b\n"
    assert json.loads(p2psync("mandates", "--json").out) == daemon.answers["/v1/mandates"]
    daemon.answers["/v1/mandates"] = {"mandates": []}
    assert "There are no mandates" in p2psync("mandates").out


def test_conflicts(daemon, p2psync) -> None:
    now = int(time.time() * 1000)
    versions = [
        {"version": "3fa9c1d2", "person": "Anna", "device": "Compta-PC", "when_ms": now, "size": 2_100_000, "here": True, "mine": True},
        {
            "version": "88b01c77",
            "person": "Bernard",
            "device": "Portable",
            "when_ms": 1,
            "size": 10,
            "here": False,
            "copy": "/b/Copy of a.cre",
        },
    ]
    daemon.answers["/v1/conflicts"] = {"conflicts": [{"mandate": "Dupont SA", "name": "Dupont 2024.cre", "versions": versions}]}
    said = p2psync("conflicts", "Dupont")
    lines = said.out.splitlines()
    assert said.code == 0
    assert daemon.asked[0].query == {"mandate": "Dupont"}
    assert lines[0] == "Dupont 2024.cre in “Dupont SA”: 2 versions, made without knowing of each other"
    assert lines[1].startswith("  3fa9c1d2  today ")
    assert lines[1].endswith("mine, stands in its place")
    assert "from Portable" in lines[2]
    assert lines[3] == "      open it: /b/Copy of a.cre"
    assert "p2psync resolve 'Dupont SA' 'Dupont 2024.cre' --keep mine|theirs|both|VERSION" in said.out
    assert json.loads(p2psync("conflicts", "--json").out) == daemon.answers["/v1/conflicts"]
    daemon.answers["/v1/conflicts"] = {"conflicts": []}
    assert p2psync("conflicts").out == "There are no conflicts.\n"


def test_history(daemon, p2psync) -> None:
    entry = {"name": "a.cre", "person": "Anna", "device": "PC", "when_ms": 1_000_000_000_000, "size": 5}
    versions = [
        entry | {"version": "aaaa1111", "act": "restore", "current": True, "kept": True},
        entry | {"version": "bbbb2222", "act": "delete", "current": False, "kept": False, "size": None},
        entry | {"version": "cccc3333", "name": "b.cre", "act": "save", "current": False, "kept": True},
    ]
    daemon.answers["/v1/history"] = {"versions": versions}
    said = p2psync("history", "Dupont")
    assert daemon.asked[0].query == {"mandate": "Dupont"}
    assert said.out.splitlines()[:7] == [
        "a.cre",
        "  aaaa1111  9 Sep 2001  Anna      5 B  restored, the current one",
        "  bbbb2222  9 Sep 2001  Anna        –  deleted",
        "",
        "b.cre",
        "  cccc3333  9 Sep 2001  Anna      5 B  saved",
        "",
    ]
    assert "p2psync restore Dupont NAME --version VERSION" in said.out
    daemon.answers["/v1/history"] = {"versions": versions[:1]}
    said = p2psync("history", "Dupont", "a.cre")
    assert daemon.asked[1].query == {"mandate": "Dupont", "name": "a.cre"}
    assert "p2psync restore Dupont a.cre --version VERSION" in said.out
    assert json.loads(p2psync("history", "Dupont", "--json").out) == {"versions": versions[:1]}
    daemon.answers["/v1/history"] = {"versions": []}
    assert p2psync("history", "Dupont").out == "Nothing has been recorded yet.\n"


def test_participants(daemon, p2psync) -> None:
    anna = {"name": "Anna", "device": "PC", "role": "owner", "self": True, "fingerprint": "AB12-CD34-EF56-GH78"}
    answer = {
        "participants": [anna],
        "tickets": [{"id": "0123456789", "for": "Bernard", "role": "editor", "expires_ms": 1_000_000_000_000}],
    }
    daemon.answers["/v1/participants"] = answer
    said = p2psync("participants", "Dupont")
    assert said.out.splitlines() == [
        "Anna  owner  PC  this machine",
        "    fingerprint AB12-CD34-EF56-GH78",
        "",
        "Tickets that have not been used:",
        "  Bernard  01234567  editor  until 9 Sep 2001",
    ]
    assert json.loads(p2psync("participants", "Dupont", "--json").out) == answer


def test_promote_on_a_terminal_has_the_fingerprint_compared(daemon, p2psync, monkeypatch) -> None:
    answer = {"participants": [{"name": "Anna", "fingerprint": "AB12-CD34"}]}
    daemon.answers |= {"/v1/participants": answer, "/v1/promote": {"message": "Anna is an owner now."}}
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    asked: list[str] = []
    answers = iter(["n", "", "oui"])

    def typed(prompt: str) -> str:
        asked.append(prompt)
        return next(answers)

    monkeypatch.setattr("builtins.input", typed)
    said = [p2psync("promote", "Dupont", "Anna") for _ in range(3)]
    assert [one.code for one in said] == [1, 1, 0]
    assert all("AB12-CD34" in one.out for one in said)
    assert len(asked) == 3
    assert len(daemon.acts) == 1


# -- tickets


TICKET = "This file is a key to a shared mandate.\n-----BEGIN P2PSYNC TICKET-----\nAAAA\n-----END P2PSYNC TICKET-----\n"


@pytest.fixture
def issuing(daemon, tmp_path):
    shared = tmp_path / "shared"
    (shared / "sub").mkdir(parents=True)
    attached = tmp_path / "attached"
    attached.mkdir()
    attachments = [
        {"name": "attached", "kind": "folder", "state": "synced", "location": str(attached)},
        {"name": "a.cre", "kind": "file", "state": "synced", "location": str(tmp_path / "here" / "a.cre")},
    ]
    daemon.answers["/v1/status"] = CALM | {"mandates": [mandate(folder=str(shared), attachments=attachments)]}
    daemon.answers["/v1/invite"] = {"ticket": TICKET, "invite": "0123", "expires_ms": 1_000_000_000_000}
    return daemon


def test_invite_writes_a_private_file_with_a_name_of_its_own(issuing, p2psync) -> None:
    said = p2psync("invite", "Dup", "--for", "Claire")
    file = Path("Dupont SA for Claire.crsync")
    assert (said.code, said.err) == (0, "")
    assert file.read_text() == TICKET
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert issuing.acts == [("/v1/invite", {"mandate": "Dup", "for": "Claire", "role": "editor", "expires_s": 604_800})]
    assert f"Written to: {file.absolute()}" in said.out
    assert "good until 9 Sep 2001" in said.out
    assert "p2psync subscribe 'Dupont SA for Claire.crsync'" in said.out
    assert TICKET not in said.out


def test_invite_as_it_was_asked_for(issuing, p2psync, tmp_path) -> None:
    (tmp_path / "stick").mkdir()
    assert p2psync("invite", "Dup", "--for", "C", "-o", "c.crsync", "--role", "reader", "--expires", "12h").code == 0
    assert p2psync("invite", "Dup", "--for", "../C:x", "-o", tmp_path / "stick").code == 0
    assert Path("c.crsync").read_text() == TICKET
    assert os.listdir(tmp_path / "stick") == ["Dupont SA for ..-C-x.crsync"]
    assert issuing.acts[0][1] == {"mandate": "Dup", "for": "C", "role": "reader", "expires_s": 43_200}


def test_invite_overwrites_nothing_and_asks_for_no_ticket_then(issuing, p2psync) -> None:
    Path("t.crsync").write_text("precious")
    said = p2psync("invite", "Dup", "--for", "C", "-o", "t.crsync")
    assert said.code == 1
    assert "exists already" in said.err
    assert Path("t.crsync").read_text() == "precious"
    assert issuing.acts == []


def test_a_link_is_not_followed_by_invite(issuing, p2psync) -> None:
    Path("t.crsync").symlink_to("elsewhere")
    assert p2psync("invite", "Dup", "--for", "C", "-o", "t.crsync").code == 1
    assert not Path("elsewhere").exists()


@pytest.mark.parametrize("place", ["shared/t.crsync", "shared/sub/t.crsync", "shared", "attached/t.crsync", "link/t.crsync"])
def test_a_ticket_is_never_put_where_it_would_be_shared(issuing, p2psync, tmp_path, place: str) -> None:
    (tmp_path / "link").symlink_to("shared/sub")
    said = p2psync("invite", "Dup", "--for", "C", "-o", tmp_path / place)
    assert said.code == 1
    assert "would be shared" in said.err
    assert issuing.acts == []


def test_a_refused_invitation_leaves_no_file(issuing, p2psync) -> None:
    issuing.answers["/v1/invite"] = refusal(400, "local-mandate", "“Dupont SA” is not shared. Share it first.")
    said = p2psync("invite", "Dup", "--for", "C", "-o", "t.crsync")
    assert (said.code, said.err) == (1, "p2psync: “Dupont SA” is not shared. Share it first.\n")
    assert not Path("t.crsync").exists()


def test_a_ticket_that_cannot_be_written_is_a_sentence(issuing, p2psync) -> None:
    said = p2psync("invite", "Dup", "--for", "C", "-o", "missing/t.crsync")
    assert said.code == 1
    assert "there is no folder “" in said.err
    assert issuing.acts == []


def test_ticket_shows_what_the_daemon_found(daemon, p2psync) -> None:
    Path("t.crsync").write_bytes(b"\xef\xbb\xbf" + TICKET.replace("\n", "\r\n").encode())
    daemon.answers["/v1/ticket"] = {
        "mandate": {"id": "ab", "name": "Dupont\x1b SA", "fingerprint": "AB12-CD34-EF56-GH78"},
        "issuer": {"person": "Anna", "device": "Compta-PC", "proved": True},
        "role": "editor",
        "created_ms": 1_000_000_000_000,
        "expires_ms": 1_000_000_000_000,
        "expired": True,
        "uses": 1,
        "approval": False,
        "protection": "none",
        "hints": ["10.0.0.2:22088", "[fe80::1]:22088"],
        "invite": "0123",
    }
    said = p2psync("ticket", "t.crsync")
    assert daemon.acts == [("/v1/ticket", {"text": TICKET.replace("\n", "\r\n")})]
    assert said.out.splitlines() == [
        "Mandate      “Dupont\\u001b SA”",
        "Fingerprint  AB12-CD34-EF56-GH78",
        "Made by      Anna on Compta-PC, proved by signatures",
        "Lets in as   editor",
        "Made         9 Sep 2001",
        "Good until   9 Sep 2001 (EXPIRED)",
        "Uses         1",
        "Protection   whoever has this file can use it: keep it to yourself, and erase it",
        "             once it is used",
        "Addresses    10.0.0.2:22088, [fe80::1]:22088",
        "Ticket id    0123",
    ]
    assert json.loads(p2psync("ticket", "t.crsync", "--json").out) == daemon.answers["/v1/ticket"]


def test_subscribe_sends_the_ticket_and_reminds_of_erasing_it(daemon, p2psync) -> None:
    Path("my ticket.crsync").write_text(TICKET)
    daemon.answers["/v1/subscribe"] = {
        "message": "Subscribed to “Dupont SA”.",
        "mandate": {"id": "ab", "name": "Dupont SA"},
        "folder": "/b",
    }
    said = p2psync("subscribe", "my ticket.crsync", "--folder", "books", "--as", "Claire")
    assert daemon.acts == [("/v1/subscribe", {"text": TICKET, "folder": str(Path("books").absolute()), "as": "Claire"})]
    assert said.code == 0
    assert "Its files come to: /b" in said.out
    assert "Erase the ticket now" in said.out
    assert str(Path("my ticket.crsync").absolute()) in said.out
    p2psync("subscribe", "my ticket.crsync")
    assert daemon.acts[1][1] == {"text": TICKET, "folder": None, "as": None}


@pytest.mark.parametrize("command", ["ticket", "subscribe"])
def test_what_is_no_ticket_is_not_sent(daemon, p2psync, command: str) -> None:
    Path("long.crsync").write_bytes(b"x" * 20_000)
    assert "longer than any ticket" in p2psync(command, "long.crsync").err
    assert "there is no such file" in p2psync(command, "missing.crsync").err
    assert "it is a folder" in p2psync(command, ".").err
    assert daemon.asked == []


# -- wait


def test_wait_until_everybody_agrees(daemon, p2psync) -> None:
    def later(request: Request) -> dict[str, Any]:
        return {"agreed": len(daemon.asked) > 2, "waiting_for": ["Bernard lacks a.cre."]}

    daemon.answers["/v1/wait"] = later
    said = p2psync("wait", "Dupont", "--timeout", "60")
    assert (said.code, said.out) == (0, "Everybody who is online has the same versions.\n")
    assert [body["mandate"] for _, body in daemon.acts] == ["Dupont"] * 3
    assert all(0 < body["timeout_s"] <= 20 for _, body in daemon.acts)


def test_wait_runs_out_of_time_with_5_and_says_what_it_waits_for(daemon, p2psync) -> None:
    waiting = [("Bernard lacks a.cre.", "Wait."), ("Claire lacks b.cre.", "")]
    daemon.answers["/v1/wait"] = {"agreed": False, "waiting_for": [], "waiting": [{"reason": why, "action": do} for why, do in waiting]}
    said = p2psync("wait", "--timeout", "0")
    assert said.code == 5
    assert "  Bernard lacks a.cre.\n  → Wait.\n  Claire lacks b.cre.\n" in said.out
    assert daemon.acts == [("/v1/wait", {"mandate": None, "timeout_s": 0})]
