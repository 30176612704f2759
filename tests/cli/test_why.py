"""``p2psync why`` on a terminal."""

from __future__ import annotations

from typing import Any

import pytest

ANSWER: dict[str, Any] = {
    "mandate": {"id": "ab" * 32, "name": "Dupont SA"},
    "name": "Belege/Bilan.xlsx",
    "asked": "Belege/Bilan.xlsx",
    "now": {
        "state": "waiting",
        "code": "open-here",
        "reason": "A newer version of “Belege/Bilan.xlsx” waits: the file is open on this machine by soffice.",
        "machine": "this machine",
        "action": "Close the file in that program.",
        "commands": [],
        "since": 1_000_000_000_000,
    },
    "here": {
        "location": "/srv/books/a very long folder name that nobody should have to put together again/Belege/Bilan.xlsx",
        "elsewhere": True,
        "size": 2_100_000,
        "kind": "file",
        "open": "open in soffice (process 12 of anna)",
        "open_since": None,
    },
    "awaited": {"bytes": 1000, "of": 2000, "have_it": ["Bruno (salon)"], "online": ["Bruno (salon)"], "nobody": False},
    "machines": [
        {"machine": "this machine", "person": "Anna", "self": True, "online": True, "last_seen": None, "sentence": "has version aa"},
        {"machine": "Bruno (salon)", "person": "Bruno", "self": False, "online": True, "sentence": "has the current version"},
        {"machine": "Clara (cave)", "person": "Clara", "self": False, "online": False, "last_seen": None, "sentence": "is not known"},
    ],
    "versions": [],
    "story": [{"when_ms": 1_000_000_000_000, "sentence": "Bruno on salon saved version bb, 2 KB, made from version aa by Anna."}],
    "more": 7,
}


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_why_tells_what_is_so_what_is_awaited_who_has_it_and_what_happened(daemon, p2psync) -> None:
    daemon.answers["/v1/why"] = ANSWER
    said = p2psync("why", "Dupont SA", "Belege/Bilan.xlsx")
    assert said.code == 0 and dict(daemon.asked[-1].query) == {"mandate": "Dupont SA", "name": "Belege/Bilan.xlsx"}
    assert "  → Close the file in that program.\n" in said.out
    assert f"  On this machine (2.1 MB): {ANSWER['here']['location']}\n" in said.out
    assert "Still to come: 1.0 KB of 2.0 KB" in said.out
    assert "  Bruno (salon)  online        has the current version\n" in said.out
    assert "  Clara (cave)   not seen yet  is not known\n" in said.out
    assert "  9 Sep 2001  Bruno on salon saved version bb" in said.out
    assert "  → And 7 earlier: p2psync why 'Dupont SA' Belege/Bilan.xlsx --all\n" in said.out


def test_a_conflict_shows_its_versions_and_needs_somebody(daemon, p2psync) -> None:
    versions = [
        {"version": "aa", "person": "Anna", "when_ms": 1, "size": 3, "copy": None, "here": True, "sentence": "stands in its place"},
        {
            "version": "bb",
            "person": "Bruno",
            "when_ms": 1,
            "size": 3,
            "copy": "/b/Bilan (Bruno).xlsx",
            "here": False,
            "sentence": "beside it",
        },
    ]
    daemon.answers["/v1/why"] = ANSWER | {"now": ANSWER["now"] | {"state": "conflict"}, "versions": versions, "awaited": None, "more": 0}
    said = p2psync("why", "Dupont SA", "Belege/Bilan.xlsx")
    assert said.code == 4 and "      /b/Bilan (Bruno).xlsx\n" in said.out and "stands in its place" in said.out


def test_programs_get_all_of_it(daemon, p2psync) -> None:
    daemon.answers["/v1/why"] = ANSWER
    said = p2psync("why", "Dupont SA", "x", "--all", "--json")
    assert said.code == 0 and '"when_ms": 1000000000000' in said.out and daemon.asked[-1].query["all"] == "1"


def test_what_is_not_known_is_refused_with_the_daemons_sentence(daemon, p2psync) -> None:
    from p2psync.edge.http import refusal

    daemon.answers["/v1/why"] = refusal(400, "not-known", "“x” is not in “Dupont SA”, and never was.")
    said = p2psync("why", "Dupont SA", "x")
    assert said.code == 1 and "never was" in said.err
