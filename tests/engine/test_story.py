"""The story of a file, from values to sentences."""

from __future__ import annotations

from typing import Any

import pytest

from p2psync.engine.story import Author, Happening, Heard, connected, everywhere, for_work, holding, tell, told_of
from p2psync.values.digest import Digest
from p2psync.values.entry import Act, Op

ANNA, BRUNO = Author("Anna", "compta", True), Author("Bruno", "salon", False)
PATH = "Belege/Bilan.xlsx"


KNEW = "knew of the current version when it last changed something; whether it has it is not known"


def did(version: str, author: Author = ANNA, *, op: Op = Op.FILE, act: Act = Act.SAVE, bytes_: str = "", **more: Any) -> Happening:
    digest = Digest((bytes_ or version).encode()) if op == Op.FILE else None
    return Happening(version, more.pop("path", PATH), op, act, author, 1, digest, None if digest is None else 2_100_000, **more)


def story(*latest_first: Happening) -> list[str]:
    happenings = connected(latest_first)
    known = {one.version: one for one in happenings}
    return [tell(one, known, PATH) for one in happenings]


def test_a_file_is_attached_saved_and_saved_again() -> None:
    said = story(
        did("cc", BRUNO, parents=("bb",)),
        did("bb"),
        did("aa", op=Op.ATTACH_FOLDER, act=Act.ATTACH, path="Belege", by="anna"),
    )
    assert said == [
        "Bruno on salon saved version cc, 2.1 MB, made from version bb by Anna.",
        "Anna on this machine saved version bb, 2.1 MB, the first one.",
        "Anna on this machine attached the folder “Belege” (asked for by the user anna).",
    ]


def test_a_conflict_is_told_once_and_so_is_how_it_was_settled() -> None:
    said = story(
        did("dd", BRUNO, act=Act.RESOLVE, parents=("bb", "cc"), bytes_="cc", by="bruno"),
        did("cc", BRUNO, parents=("aa",)),
        did("bb", parents=("aa",)),
        did("aa"),
    )
    assert said[0] == (
        "Bruno on salon settled the conflict between version bb by Anna and version cc by Bruno, keeping version cc by Bruno:"
        " version dd, 2.1 MB (asked for by the user bruno)."
    )
    assert said[1].endswith("made from version aa by Anna, without knowing of version bb by Anna: a conflict.")
    assert "conflict" not in said[2]


def test_two_first_versions_are_a_conflict_too_and_the_same_bytes_never_are() -> None:
    assert "without knowing of version aa" in story(did("bb", BRUNO), did("aa"))[0]
    assert "conflict" not in "".join(story(did("bb", BRUNO, bytes_="x"), did("aa", bytes_="x")))
    gone = story(did("cc", BRUNO, op=Op.GONE, act=Act.DELETE, parents=("aa",)), did("bb", parents=("aa",)), did("aa"))
    assert gone[0] == "Bruno on salon deleted it, which was version aa by Anna, without knowing of version bb by Anna: a conflict."


def test_what_was_made_from_one_after_the_other_is_no_conflict() -> None:
    assert "conflict" not in "".join(story(did("cc", parents=("bb",)), did("bb", BRUNO, parents=("aa",)), did("aa")))


def test_an_old_version_is_brought_back() -> None:
    said = story(did("cc", act=Act.RESTORE, parents=("bb",), bytes_="aa"), did("bb", parents=("aa",)), did("aa"))
    assert said[0] == "Anna on this machine brought back version aa by Anna of it: version cc, 2.1 MB."


def test_what_is_not_told_any_more_is_named_all_the_same() -> None:
    assert story(did("cc", parents=("bb",)))[0].endswith("made from version bb.")


def test_in_the_story_of_a_folder_each_file_is_named() -> None:
    (one,) = connected([did("bb", parents=("aa",))])
    assert tell(one, {}, "Belege") == "Anna on this machine saved version bb of “Belege/Bilan.xlsx”, 2.1 MB, made from version aa."
    gone = did("cc", op=Op.GONE, act=Act.DELETE)
    assert tell(gone, {}, "Belege") == "Anna on this machine deleted “Belege/Bilan.xlsx”."
    assert tell(did("dd", op=Op.FOLDER), {}, "Belege") == "Anna on this machine made the folder “Belege/Bilan.xlsx”."


def test_programs_are_told_the_same() -> None:
    one, other = connected([did("bb", BRUNO, parents=("aa",), by="bruno"), did("cc", parents=("aa",))])
    told = told_of(one, {}, PATH)
    assert told["against"] == ["cc"] and told["from"] == ["aa"] and told["by"] == "bruno" and not told["own"]
    assert told_of(other, {}, PATH)["against"] == ["bb"]


@pytest.mark.parametrize(
    ("heard", "holds", "sentence"),
    [
        (Heard(True, 9, 0, 7, False, False), "current", "has the current version"),
        (Heard(False, 9, 0, 7, False, True), "current", "had the current version when it was last heard"),
        (Heard(True, 9, 2, 7, False, False), "unknown", "has 2 files still to receive; whether this is one of them it does not say"),
        (Heard(True, 5, 0, 7, False, False), "older", "has not heard of the current version yet"),
        (Heard(False, 5, 0, 7, True, True), "current", "made the current version"),
        (
            Heard(False, None, 0, 7, False, True),
            "unknown",
            KNEW,
        ),
        (Heard(True, None, 0, 7, False, False), "unknown", "has not told yet what it has"),
        (Heard(False, None, 0, 7, False, False), "unknown", "what it has is not known"),
        (Heard(True, 9, 0, 7, False, False, "deletion"), "current", "has deleted it too"),
        (Heard(True, 5, 0, 7, False, False, "folder"), "older", "has not heard of the last change in it yet"),
    ],
)
def test_what_another_machine_holds_is_said_as_far_as_it_is_known(heard: Heard, holds: str, sentence: str) -> None:
    assert holding(heard) == (holds, sentence)


def test_where_a_file_is_that_is_up_to_date_here() -> None:
    assert everywhere("a", []) == "“a” is up to date on this machine; nobody else has joined yet."
    assert everywhere("a", [("Bruno (salon)", True, "current")]) == "“a” is up to date on this machine and on Bruno (salon)."
    said = everywhere("a", [("Bruno (salon)", True, "current"), ("Clara (cave)", False, "unknown")])
    assert said == "“a” is up to date on this machine and on Bruno (salon). It is not known whether Clara (cave) has it too."


@pytest.mark.parametrize("name", ["~$Bilan.docx", ".~lock.Bilan.ods#", "journal.db-wal", "Thumbs.db", ".goutputstream-ABC123"])
def test_a_file_made_for_work_is_told_for_what_it_is(name: str) -> None:
    assert for_work(name).startswith("it ")
