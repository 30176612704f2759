"""The versions of every path, as the records of all members make them, and names that are not to meet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psync.store import naming, paths, versions
from p2psync.store.paths import PathView
from p2psync.values.content import Content, File, Folder, Gone, Observed, Stamp, State
from p2psync.values.digest import content_digest
from p2psync.values.entry import Act, Entry, Op, Ref, entry_for
from p2psync.values.names import RelPath
from tests.lan.desks import Desk, fast_place


@pytest.fixture
def desks() -> Iterator[tuple[Desk, Desk]]:
    with fast_place() as place:
        anna = Desk(place / "anna", "Anna").found()
        marie = Desk(place / "marie", "Marie").join(anna, anna.invite("Marie"))
        yield anna, marie
        for desk in (anna, marie):
            desk.books.close()


def file(text: str) -> File:
    digest = content_digest(text.encode())
    return File(Content(digest, len(text), digest))


def say(desk: Desk, path: str, state: State | str, *parents: Ref, act: Act = Act.SAVE) -> Ref:
    what = file(state) if isinstance(state, str) else state
    ((record, _),) = desk.books.record([entry_for(RelPath(path), what, parents=parents, act=act)])
    return Ref(record.id, 0)


def attach(desk: Desk, name: str, op: Op, *parents: Ref) -> Ref:
    ((record, _),) = desk.books.record([Entry(op, RelPath(name), parents=parents)])
    return Ref(record.id, 0)


def heads(desk: Desk, path: str) -> set[Ref]:
    return set(versions.heads(desk.books.ledger.read(), RelPath(path)).refs)


# ---- heads


def test_a_version_supersedes_those_it_names(desks: tuple[Desk, Desk]) -> None:
    anna, marie = desks
    first = say(anna, "recus/a", "1")
    marie.learn(anna)
    second = say(marie, "recus/a", "2", first)
    third = say(anna, "recus/a", "3", first)
    anna.learn(marie)
    marie.learn(anna)
    assert heads(anna, "recus/a") == heads(marie, "recus/a") == {second, third}
    fourth = say(anna, "recus/a", "4", second, third)
    assert heads(anna, "recus/a") == {fourth}


def test_a_version_supersedes_none_of_another_path_and_no_attachment(desks: tuple[Desk, Desk]) -> None:
    anna, _ = desks
    other = say(anna, "recus/a", "1")
    attached = attach(anna, "recus", Op.ATTACH_FOLDER)
    say(anna, "recus/b", "2", other, attached)
    say(anna, "recus", Folder(), attached)
    assert heads(anna, "recus/a") == {other}
    assert versions.attachments(anna.books.ledger.read()) == {RelPath("recus"): Op.ATTACH_FOLDER}


def test_who_saved_knowing_of_the_other_version_stays_at_the_path(desks: tuple[Desk, Desk]) -> None:
    anna, marie = desks
    for _ in range(8):  # either may come first by its entry
        path = f"recus/{anna.books.journal.view().hex()[:12]}"
        one, other = say(anna, path, "anna"), say(marie, path, "marie")
        anna.learn(marie)
        newer = say(anna, path, "anna goes on", one)
        marie.learn(anna)
        for desk in desks:
            found = versions.heads(desk.books.ledger.read(), RelPath(path))
            assert found.winner.ref == newer and found.refs == {newer, other}


def test_every_order_of_arrival_gives_the_same_heads_and_the_same_winner(desks: tuple[Desk, Desk]) -> None:
    anna, marie = desks
    first = say(anna, "recus/a", "1")
    marie.learn(anna)
    mine, theirs = say(anna, "recus/a", "2", first), say(marie, "recus/a", "3", first)
    gone = say(marie, "recus/a", Gone(), theirs)
    anna.learn(marie)
    found = versions.heads(anna.books.ledger.read(), RelPath("recus/a"))
    marie.learn(anna)
    assert versions.heads(marie.books.ledger.read(), RelPath("recus/a")) == found
    assert found.refs == {mine, gone} and found.winner.ref == mine


def test_what_is_gone(desks: tuple[Desk, Desk]) -> None:
    anna, _ = desks
    db = anna.books.ledger.read()
    first = say(anna, "recus/a", "1")
    assert versions.is_live(db, RelPath("recus/a")) and not versions.is_live(db, RelPath("recus/never"))
    say(anna, "recus/a", Gone(), first)
    assert not versions.is_live(db, RelPath("recus/a"))


# ---- lists


def test_only_what_lives_at_or_below_a_name(desks: tuple[Desk, Desk]) -> None:
    anna, _ = desks
    for path in ("recus", "recus-2/a", "recus0", "recu/a", "Recus/a"):
        say(anna, path, Folder())
    a = say(anna, "recus/sub/a", "1")
    say(anna, "recus/b", "1")
    say(anna, "recus/sub/a", Gone(), a)
    found = {path.text for path in versions.live_paths(anna.books.ledger.read(), RelPath("recus"))}
    assert found == {"recus", "recus/b"}


def test_a_conflict_is_two_versions_with_different_bytes(desks: tuple[Desk, Desk]) -> None:
    anna, marie = desks
    for path, one, other in (("recus/a", "1", "2"), ("recus/b", "same", "same"), ("recus/c", "1", Gone()), ("recus/d", "1", Folder())):
        say(anna, path, one)
        say(marie, path, other)  # type: ignore[arg-type]
    anna.learn(marie)
    assert {path.text for path in versions.conflicted(anna.books.ledger.read())} == {"recus/a", "recus/d"}


def test_the_first_attachment_counts_and_outlives_a_detach_that_did_not_know_of_it(desks: tuple[Desk, Desk]) -> None:
    anna, marie = desks
    first = attach(anna, "recus", Op.ATTACH_FOLDER)
    marie.learn(anna)
    detached = attach(marie, "recus", Op.DETACH, first)
    again = attach(anna, "recus", Op.ATTACH_FILE, first)
    for one, other in ((anna, marie), (marie, anna)):
        one.learn(other)
        db = one.books.ledger.read()
        assert versions.attachments(db) == {RelPath("recus"): Op.ATTACH_FILE}
        assert [ref for ref, _ in versions.attachment_heads(db, RelPath("recus"))] == [again, detached]
    attach(anna, "recus", Op.DETACH, again, detached)
    assert versions.attachments(anna.books.ledger.read()) == {}


@pytest.mark.parametrize("clock_ms", [0, 1, 2, 3])
def test_clocks_decide_neither_what_stands_at_a_path_nor_what_is_attached(desks: tuple[Desk, Desk], clock_ms: int) -> None:
    anna, marie = desks
    marie.clock += clock_ms
    attach(anna, "recus", Op.ATTACH_FILE)
    attach(marie, "recus", Op.ATTACH_FOLDER)
    say(anna, "recus/a", "anna")
    say(marie, "recus/a", "marie")
    for one, other in ((anna, marie), (marie, anna)):
        one.learn(other)
        db = one.books.ledger.read()
        assert versions.attachments(db) == {RelPath("recus"): Op.ATTACH_FOLDER}
        assert versions.heads(db, RelPath("recus/a")).winner.state == min(
            file("anna"), file("marie"), key=lambda state: state.content.digest
        )


def test_the_history_is_complete_newest_first_and_says_which_versions_stand(desks: tuple[Desk, Desk]) -> None:
    anna, marie = desks
    attach(anna, "recus", Op.ATTACH_FOLDER)
    first = say(anna, "recus/a", "1")
    marie.learn(anna)
    second = say(marie, "recus/a", Gone(), first, act=Act.DELETE)
    anna.learn(marie)
    say(anna, "recus2/a", "1")
    found = versions.history(anna.books.ledger.read(), RelPath("recus/a"))
    assert [(v.ref, v.head, v.device) for v in found] == [(second, True, marie.home.device), (first, False, anna.home.device)]
    assert found[0].entry.act == Act.DELETE and found[0].time_ms == marie.clock
    assert len(versions.history(anna.books.ledger.read(), RelPath("recus"))) == 3
    assert len(versions.history(anna.books.ledger.read(), None)) == 4
    assert versions.version_of(anna.books.ledger.read(), first) == found[1]
    assert versions.entry(anna.books.ledger.read(), first) == found[1].entry
    assert versions.entry(anna.books.ledger.read(), Ref(first.record, 7)) is None


def test_an_earlier_version_is_recognised_by_its_content(desks: tuple[Desk, Desk]) -> None:
    anna, _ = desks
    db = anna.books.ledger.read()
    first = say(anna, "recus/a", "1")
    assert versions.superseded(db, RelPath("recus/a"), file("1").content) is None, "it still stands"
    again = say(anna, "recus/a", "1", say(anna, "recus/a", "2", first))
    say(anna, "recus/a", "3", again)
    assert versions.superseded(db, RelPath("recus/a"), file("1").content) == again
    assert versions.superseded(db, RelPath("recus/b"), file("1").content) is None
    assert versions.referenced(db, [file("2").content.digest, content_digest(b"never")]) == {file("2").content.digest}


def test_versions_in_one_record_have_names_of_their_own() -> None:
    refs = [Ref(content_digest(b"r"), number) for number in range(256)]  # type: ignore[arg-type]
    names = [versions.version_name(ref) for ref in refs]
    assert len(set(names)) == 256 and all(len(name) == 10 and int(name, 16) >= 0 for name in names)


# ---- names that some file systems take for one another


def stands(desk: Desk, path: str) -> None:
    """Something is on the disk at this path."""
    with desk.books.writing() as db:
        observed = Observed(Stamp("file", 1, 0, 0, 1, False), file("x"))
        paths.put(db, PathView(RelPath(path), tuple(path.split("/"))[1:], observed))


@pytest.mark.parametrize(("one", "other"), [("recus/a", "recus/A"), ("recus/é", "recus/É"), ("recus/straße", "recus/STRASSE")])
def test_of_two_namesakes_one_is_recorded_and_the_other_waits(desks: tuple[Desk, Desk], one: str, other: str) -> None:
    anna, _ = desks
    db = anna.books.ledger.read()
    assert naming.Naming(db).recorded(RelPath(other)) is None
    first = say(anna, one, "1")
    assert naming.Naming(db).recorded(RelPath(other)) == RelPath(one)
    assert naming.Naming(db).recorded(RelPath(one)) is None
    say(anna, one, Gone(), first)
    assert naming.Naming(db).recorded(RelPath(other)) is None


def test_of_two_that_are_new_at_once_the_first_is_recorded(desks: tuple[Desk, Desk]) -> None:
    found = naming.Naming(desks[0].books.ledger.read())
    assert found.recorded(RelPath("recus/A")) is None
    assert found.recorded(RelPath("recus/a")) == RelPath("recus/A")
    assert found.recorded(RelPath("recus/A")) is None


def test_what_is_in_a_folder_that_waits_waits_with_it(desks: tuple[Desk, Desk]) -> None:
    anna, _ = desks
    say(anna, "recus/Sub", Folder())
    found = naming.Naming(anna.books.ledger.read())
    assert found.recorded(RelPath("recus/sub/deep/a")) == RelPath("recus/Sub")
    assert found.recorded(RelPath("recus/Sub/deep/a")) is None
    assert found.recorded(RelPath("RECUS/a")) is None, "an attachment is no folder inside one"


@pytest.mark.parametrize("clock_ms", [0, 1, 2, 3])
def test_what_stands_here_has_the_better_right_then_the_first_by_its_spelling(desks: tuple[Desk, Desk], clock_ms: int) -> None:
    anna, marie = desks
    marie.clock += clock_ms
    say(anna, "recus/a", "1")
    say(marie, "recus/A", "2")
    for one, another in ((anna, marie), (marie, anna)):
        one.learn(another)
    for desk in desks:
        db = desk.books.ledger.read()
        assert [naming.applied(db, RelPath(path)) for path in ("recus/A", "recus/a")] == [None, RelPath("recus/A")]
    for path, other in itertools.permutations(("recus/a", "recus/A")):
        with fast_place() as place:
            luc = Desk(place / "luc", "Luc").join(anna, anna.invite("Luc"))
            stands(luc, path)
            assert naming.applied(luc.books.ledger.read(), RelPath(path)) is None
            assert naming.applied(luc.books.ledger.read(), RelPath(other)) == RelPath(path)
            luc.books.close()


def test_what_goes_frees_those_that_waited_for_it(desks: tuple[Desk, Desk], tmp_path: Path) -> None:
    anna, _ = desks
    db = anna.books.ledger.read()
    say(anna, "recus/A/b", "1")
    stands(anna, "recus/a/c")
    assert naming.freed(db, [RelPath("recus/A")]) >= {RelPath("recus/a/c")}
    assert naming.freed(db, [RelPath("recus/x")]) == set() == naming.freed(db, [])
