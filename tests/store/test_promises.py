"""The promises of the store, each as what may go wrong in an office: two or three machines, their records and chunks carried by hand."""

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from p2psync.store import attaching, carryout, copies, resolving, root, sharing, vanishing, versions
from p2psync.store.faults import DiskFull
from p2psync.store.locations import Location
from p2psync.store.seeing import NotNoted
from p2psync.store.spots import Looked, Spot
from p2psync.values.acts import Role
from p2psync.values.digest import content_digest
from p2psync.values.entry import Act, Entry, Op
from p2psync.values.names import RelPath
from tests.lan.desks import Desk, fast_place, fast_vanishing, tree


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    fast_vanishing(monkeypatch)


@pytest.fixture
def desks():
    """Opens desks: the first one founds the mandate, the others join it."""
    opened: list[Desk] = []

    def seat(person: str, role: Role = Role.EDITOR) -> Desk:
        desk = Desk(place / person.lower(), person)
        desk.files = place / person.lower() / "files"
        desk.files.mkdir(parents=True)
        opened.append(desk.join(opened[0], opened[0].invite(person, role)) if opened else desk.found())
        return desk

    with fast_place() as place:
        yield seat
        for desk in opened:
            desk.arrivals.close()
            desk.books.close()


@pytest.fixture
def anna(desks):
    return desks("Anna")


@pytest.fixture
def marie(anna, desks):
    return desks("Marie")


@pytest.fixture
def zoe(marie, desks):
    return desks("Zoe")


def exchange(*desks, rounds=3):
    """Everybody learns and gets all that there is."""
    for _ in range(rounds):
        for one in desks:
            for other in desks:
                if one is not other:
                    one.learn(other)
            one.settle(*[d for d in desks if d is not one])


def quiet(*desks):
    """All is told, and nothing more is said or written (L1)."""
    exchange(*desks)
    views = {desk.books.journal.view() for desk in desks}
    assert len(views) == 1
    for desk in desks:
        sharing.finish(desk.books, desk.sources)
        desk.work.sweep()
    stamps = [stamps_of(desk) for desk in desks]
    for desk in desks:
        assert not desk.settle(*[d for d in desks if d is not desk]).records
    assert [stamps_of(desk) for desk in desks] == stamps


def stamps_of(desk):
    found = [path for place in (desk.files, desk.folder) for path in place.rglob("*")]
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_ino) for path in found}


def share_file(anna, *others, text="1", name="compta.cre"):
    book = anna.files / name
    book.write_text(text)
    anna.attach(book)
    exchange(anna, *others)
    return book


def share_folder(anna, *others, files=("a", "b", "c"), name="recus"):
    folder = anna.files / name
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(f"{file} 1")
    anna.attach(folder)
    exchange(anna, *others)
    return folder


def codes(worked):
    return {shown: attention.code for shown, attention in worked.attention.items() if attention is not None}


def held(desk, text: str) -> bool:
    """Whether a version with this text is on this desk: on its disk or in its history."""
    standing = {*tree(desk.files).values(), *tree(desk.folder).values()}
    return text in standing or desk.sources.chunk(content_digest(text.encode())) is not None


# ---- crashes between what is seen, what is recorded and what is done


def test_a_new_file_seen_before_a_crash_is_recorded_after_it(anna, marie):
    folder = share_folder(anna, marie)
    old = folder / "received by mail.pdf"
    old.write_text("old")
    os.utime(old, (1_600_000_000, 1_600_000_000))
    anna.look.look(anna.look.survey(RelPath("recus"), Looked()))
    anna.restart()
    quiet(anna, marie)
    assert (marie.folder / "recus/received by mail.pdf").read_text() == "old"


@pytest.mark.parametrize("act", ["folder", "permission", "deletion"])
def test_what_was_seen_before_a_crash_is_recorded_after_it(anna, marie, act):
    folder = share_folder(anna, marie, files=("a", "sub/b"))
    time.sleep(0.01)
    if act == "folder":
        (folder / "empty").mkdir()
    elif act == "permission":
        (folder / "a").chmod(0o755)
    else:
        shutil.rmtree(folder / "sub")
    anna.look.look(anna.look.survey(RelPath("recus"), Looked()))
    anna.restart()
    quiet(anna, marie)
    there = marie.folder / "recus"
    seen = {"folder": (there / "empty").is_dir(), "permission": os.access(there / "a", os.X_OK), "deletion": not (there / "sub").exists()}
    assert seen[act]


def test_the_same_bytes_do_not_conflict_later_because_of_a_crash(anna, marie):
    book = share_file(anna, marie)
    book.write_text("same")
    (marie.folder / "compta.cre").write_text("same")
    anna.settle()
    marie.settle()
    anna.learn(marie)
    anna.todo = set()
    anna.restart()
    anna.settle()
    book.write_text("later, by Anna")
    quiet(anna, marie)
    assert not anna.conflicts()
    assert (marie.folder / "compta.cre").read_text() == "later, by Anna"


# ---- files, folders and links in each other's place


def test_a_file_replaced_by_a_folder_and_back(anna, marie):
    folder = share_folder(anna, marie)
    (folder / "a").unlink()
    (folder / "a").mkdir()
    (folder / "a/inside").write_text("inside")
    quiet(anna, marie)
    assert tree(marie.folder / "recus") == {"a/inside": "inside", "b": "b 1", "c": "c 1"}
    shutil.rmtree(folder / "a")
    (folder / "a").write_text("a file again")
    quiet(anna, marie)
    assert tree(marie.folder / "recus") == {"a": "a file again", "b": "b 1", "c": "c 1"}


def test_a_folder_in_place_of_an_attached_file_shares_nothing_of_what_is_around_it(anna, marie):
    book = share_file(anna, marie)
    (anna.files / "private").mkdir()
    (anna.files / "private/letter.txt").write_text("not shared")
    book.unlink()
    book.mkdir()
    (book / "inside").write_text("inside")
    worked = anna.settle()
    assert not worked.records
    assert codes(worked)["compta.cre"]
    quiet(anna, marie)
    assert tree(marie.folder) == {"compta.cre": "1"}
    shutil.rmtree(book)
    book.write_text("2")
    quiet(anna, marie)
    assert tree(marie.folder) == {"compta.cre": "2"}


def test_a_file_saved_elsewhere_into_a_folder_that_became_a_file_here(anna, marie):
    folder = share_folder(anna, marie, files=("a", "sub/b"))
    shutil.rmtree(folder / "sub")
    (folder / "sub").write_text("a file now")
    anna.settle()
    (marie.folder / "recus/sub/new").write_text("new")
    marie.settle()
    quiet(anna, marie)
    assert "new" in tree(folder).values() and "new" in tree(marie.folder / "recus").values()
    assert "a file now" in tree(folder).values() and "a file now" in tree(marie.folder / "recus").values()


def test_a_folder_renamed_while_a_file_in_it_is_edited_elsewhere(anna, marie):
    folder = share_folder(anna, marie, files=("2025/a", "2025/b"))
    (folder / "2025").rename(folder / "2026")
    anna.settle()
    (marie.folder / "recus/2025/a").write_text("edited by Marie")
    marie.settle()
    anna.learn(marie)
    anna.settle(marie)
    assert (folder / "2025/a").read_text() == "edited by Marie"
    quiet(anna, marie)
    expected = {"2025/a": "edited by Marie", "2026/a": "2025/a 1", "2026/b": "2025/b 1"}
    assert tree(folder) == tree(marie.folder / "recus") == expected


def test_a_folder_deleted_while_a_new_file_comes_into_it_elsewhere(anna, marie):
    folder = share_folder(anna, marie, files=("x", "sub/a"))
    shutil.rmtree(folder / "sub")
    (marie.folder / "recus/sub/new").write_text("new")
    anna.settle()
    marie.settle()
    quiet(anna, marie)
    assert tree(folder) == tree(marie.folder / "recus") == {"x": "x 1", "sub/new": "new"}


def test_a_link_in_place_of_a_file_or_folder_deletes_nothing(anna, marie, tmp_path):
    folder = share_folder(anna, marie, files=("a", "sub/b", "c"))
    (tmp_path / "secret").write_text("secret")
    (folder / "a").unlink()
    (folder / "a").symlink_to(tmp_path / "secret")
    shutil.move(folder / "sub", tmp_path / "moved")
    (folder / "sub").symlink_to(tmp_path / "moved")
    worked = anna.settle()
    assert not worked.records
    assert codes(worked)
    (marie.folder / "recus/a").write_text("by Marie")
    (marie.folder / "recus/sub/b").write_text("by Marie")
    quiet(anna, marie)
    assert tree(marie.folder / "recus") == {"a": "by Marie", "c": "c 1", "sub/b": "by Marie"}
    assert (tmp_path / "secret").read_text() == "secret"
    assert (tmp_path / "moved/b").read_text() == "sub/b 1"
    (folder / "a").unlink()
    (folder / "sub").unlink()
    (folder / "sub").mkdir()
    exchange(anna, marie)
    anna.restart()
    exchange(anna, marie)


# ---- names


def test_a_rename_by_case_alone_reaches_the_others(anna, marie):
    folder = share_folder(anna, marie, files=("Facture.pdf", "b"))
    (folder / "Facture.pdf").rename(folder / "facture.pdf")
    anna.settle()
    quiet(anna, marie)
    assert tree(marie.folder / "recus") == {"facture.pdf": "Facture.pdf 1", "b": "b 1"}


def test_two_names_for_one_path_do_not_take_turns(anna, marie):
    folder = share_folder(anna, marie, files=("été.pdf", "b"))
    (folder / "e\u0301te\u0301.pdf").write_text("the other spelling")
    worked = anna.settle()
    assert not worked.records
    assert "name-collision" in codes(worked).values()
    quiet(anna, marie)
    assert tree(marie.folder / "recus") == {"été.pdf": "été.pdf 1", "b": "b 1"}
    (folder / "e\u0301te\u0301.pdf").rename(folder / "autre.pdf")
    quiet(anna, marie)
    assert tree(marie.folder / "recus") == {"été.pdf": "été.pdf 1", "b": "b 1", "autre.pdf": "the other spelling"}


def test_another_spelling_of_the_same_name_is_no_change(anna, marie):
    folder = share_folder(anna, marie, files=("été.pdf", "b"))
    (folder / "\u00e9t\u00e9.pdf").rename(folder / "e\u0301te\u0301.pdf")
    assert not anna.settle().records
    (marie.folder / "recus/été.pdf").write_text("by Marie")
    quiet(anna, marie)
    assert tree(folder) == {"e\u0301te\u0301.pdf": "by Marie", "b": "b 1"}


def test_names_that_collide_wait_for_a_person_on_both_machines(anna, marie):
    folder = share_folder(anna, marie, files=("b",))
    (folder / "Facture.pdf").write_text("by Anna")
    (marie.folder / "recus/facture.pdf").write_text("by Marie")
    anna.settle()
    marie.settle()
    quiet(anna, marie)
    assert tree(folder) == {"Facture.pdf": "by Anna", "b": "b 1"}
    assert tree(marie.folder / "recus") == {"facture.pdf": "by Marie", "b": "b 1"}
    (folder / "Facture.pdf").rename(folder / "Facture 1.pdf")
    quiet(anna, marie)
    assert tree(folder) == tree(marie.folder / "recus") == {"Facture 1.pdf": "by Anna", "facture.pdf": "by Marie", "b": "b 1"}


def test_a_folder_whose_name_collides_is_not_shared_in_parts(anna, marie):
    folder = share_folder(anna, marie, files=("Docs/a", "b"))
    (folder / "docs").mkdir()
    (folder / "docs/c").write_text("c")
    worked = anna.settle()
    assert not worked.records
    quiet(anna, marie)
    assert tree(marie.folder / "recus") == {"Docs/a": "Docs/a 1", "b": "b 1"}
    (folder / "docs").rename(folder / "more")
    quiet(anna, marie)
    assert tree(marie.folder / "recus") == {"Docs/a": "Docs/a 1", "b": "b 1", "more/c": "c"}


# ---- conflicts


def conflict(anna, marie, *, folder=False, by=("by Anna", "by Marie")):
    """Both save without knowing of each other; returns the two files."""
    if folder:
        one, other = share_folder(anna, marie, files=("x/a", "b")) / "x/a", marie.folder / "recus/x/a"
    else:
        one, other = share_file(anna, marie), marie.folder / "compta.cre"
    one.write_text(by[0])
    other.write_text(by[1])
    anna.settle()
    marie.settle()
    exchange(anna, marie)
    assert anna.conflicts() == marie.conflicts() != set()
    return one, other


def copies_beside(path: Path) -> list[Path]:
    return [p for p in path.parent.iterdir() if p.name.startswith(f"{path.stem} (")]


@pytest.mark.parametrize("folder", [False, True])
def test_a_conflict_lasts_over_restarts_and_is_shown(anna, marie, folder):
    one, other = conflict(anna, marie, folder=folder)
    for desk in (anna, marie):
        desk.restart()
        assert "conflict" in codes(desk.settle(anna, marie)).values()
    quiet(anna, marie)
    assert {one.read_text(), copies_beside(one)[0].read_text()} == {"by Anna", "by Marie"}
    assert one.read_text() == other.read_text()


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("keep", ["mine", "theirs", "both"])
def test_a_copy_that_was_deleted_comes_back_until_somebody_chooses(anna, marie, folder, keep):
    one, other = conflict(anna, marie, folder=folder)
    copies_beside(one)[0].unlink()
    anna.restart()
    quiet(anna, marie)
    assert len(copies_beside(one)) == 1
    anna.resolve(next(iter(anna.conflicts())), keep)
    quiet(anna, marie)
    assert not anna.conflicts() and not marie.conflicts()
    expected = {"mine": {"by Anna"}, "theirs": {"by Marie"}, "both": {"by Anna", "by Marie"}}[keep]
    for path in (one, other):
        assert {p.read_text() for p in [path, *copies_beside(path)]} == expected


@pytest.mark.parametrize("folder", [False, True])
def test_a_copy_that_was_changed_is_nobodys_to_remove(anna, marie, folder):
    one, other = conflict(anna, marie, folder=folder)
    copies_beside(one)[0].write_text("worked on")
    quiet(anna, marie)
    marie.resolve(next(iter(marie.conflicts())), "mine")
    quiet(anna, marie)
    assert not anna.conflicts() and not marie.conflicts()
    assert one.read_text() == other.read_text() == "by Marie"
    assert [p.read_text() for p in copies_beside(one)] == ["worked on"]
    if folder:  # what lies in a shared folder is shared
        assert [p.read_text() for p in copies_beside(other)] == ["worked on"]


def test_a_copy_that_was_renamed_is_a_file_of_its_own(anna, marie):
    one, other = conflict(anna, marie, folder=True)
    copies_beside(one)[0].rename(one.with_name("mine.txt"))
    quiet(anna, marie)
    assert other.with_name("mine.txt").read_text() in ("by Anna", "by Marie")
    assert len(copies_beside(one)) == len(copies_beside(other)) == 1
    anna.resolve("recus/x/a", "mine")
    quiet(anna, marie)
    assert one.read_text() == other.read_text() == "by Anna"
    assert not copies_beside(one) and not copies_beside(other)


def test_a_copy_that_is_open_stays_until_it_is_closed(anna, marie, held_open):
    one, _ = conflict(anna, marie, folder=True)
    with held_open(copies_beside(one)[0]):
        marie.resolve("recus/x/a", "mine")
        exchange(anna, marie)
        assert len(copies_beside(one)) == 1
        assert sorted(tree(marie.folder / "recus")) == ["b", "x/a"]
    quiet(anna, marie)
    assert not copies_beside(one)
    assert tree(anna.files / "recus") == tree(marie.folder / "recus") == {"b": "b 1", "x/a": "by Marie"}


@pytest.mark.parametrize("folder", [False, True])
def test_a_save_at_the_path_while_it_is_in_conflict(anna, marie, folder):
    one, other = conflict(anna, marie, folder=folder)
    stood, beside = one.read_text(), copies_beside(one)[0].read_text()
    one.write_text("newer")
    quiet(anna, marie)
    assert one.read_text() == other.read_text() == "newer"
    assert [p.read_text() for p in copies_beside(one)] == [p.read_text() for p in copies_beside(other)] == [beside]
    assert held(anna, stood) and anna.conflicts() == marie.conflicts() != set()


def test_taking_the_other_version_by_hand_ends_the_conflict(anna, marie):
    one, _ = conflict(anna, marie)
    beside = copies_beside(one)[0].read_text()
    one.write_text(beside)
    quiet(anna, marie)
    assert not anna.conflicts() and not marie.conflicts()
    assert tree(marie.folder) == {"compta.cre": beside}
    assert [p.name for p in anna.files.iterdir()] == ["compta.cre"]


@pytest.mark.parametrize("keeps", [("mine", "mine"), ("theirs", "theirs"), ("mine", "theirs"), ("both", "mine"), ("both", "both")])
def test_two_people_resolve_at_once(anna, marie, keeps):
    conflict(anna, marie)
    anna.resolve("compta.cre", keeps[0])
    marie.resolve("compta.cre", keeps[1])
    anna.settle()
    marie.settle()
    quiet(anna, marie)
    everything = {*tree(anna.files).values(), *tree(marie.folder).values()}
    chosen = {"mine": ("by Anna", "by Marie"), "theirs": ("by Marie", "by Anna"), "both": ({"by Anna", "by Marie"},) * 2}
    for who, keep in enumerate(keeps):
        wanted = chosen[keep][who]
        assert (wanted if isinstance(wanted, set) else {wanted}) <= everything
    if keeps == ("mine", "mine") or keeps == ("theirs", "theirs"):
        assert anna.conflicts() == marie.conflicts() == {"compta.cre"}  # they chose differently
    if anna.conflicts():
        anna.resolve("compta.cre", "mine" if keeps != ("theirs", "theirs") else "theirs")
        quiet(anna, marie)
    assert not anna.conflicts() and not marie.conflicts()
    assert sorted(tree(anna.files).values()) == sorted(tree(marie.folder).values())


def test_three_versions_of_which_one_is_deleted(anna, marie, zoe):
    folder = share_folder(anna, marie, zoe)
    for desk, at in ((anna, folder), (marie, marie.folder / "recus"), (zoe, zoe.folder / "recus")):
        (at / "a").write_text(f"by {desk.person}")
        desk.settle()
    quiet(anna, marie, zoe)
    for at in (folder, marie.folder / "recus", zoe.folder / "recus"):
        assert {p.read_text() for p in [at / "a", *copies_beside(at / "a")]} == {"by Anna", "by Marie", "by Zoe"}
    gone = (folder / "a").read_text()
    (folder / "a").unlink()
    quiet(anna, marie, zoe)
    for at in (folder, marie.folder / "recus", zoe.folder / "recus"):
        assert {p.read_text() for p in [at / "a", *copies_beside(at / "a")]} == {"by Anna", "by Marie", "by Zoe"} - {gone}
    assert held(anna, gone)
    (folder / "a").unlink()
    quiet(anna, marie, zoe)
    assert not any(desk.conflicts() for desk in (anna, marie, zoe))
    assert len({(at / "a").read_text() for at in (folder, marie.folder / "recus", zoe.folder / "recus")}) == 1
    assert not copies_beside(folder / "a")


def test_a_deletion_that_did_not_know_of_an_edit_yields(anna, marie):
    folder = share_folder(anna, marie)
    (folder / "a").unlink()
    anna.settle()
    (marie.folder / "recus/a").write_text("by Marie")
    marie.settle()
    quiet(anna, marie)
    assert (folder / "a").read_text() == "by Marie"
    assert not anna.conflicts() and not marie.conflicts()


def test_a_rename_and_an_edit_of_the_same_file(anna, marie):
    folder = share_folder(anna, marie)
    (folder / "a").rename(folder / "renamed")
    anna.settle()
    (marie.folder / "recus/a").write_text("by Marie")
    marie.settle()
    quiet(anna, marie)
    assert tree(folder) == tree(marie.folder / "recus") == {"a": "by Marie", "renamed": "a 1", "b": "b 1", "c": "c 1"}


@pytest.mark.parametrize("name", ["x" * 251 + ".cre", "é" * 127, "a." + "b" * 240, "." + "c" * 250, "d" * 100 + "." + "e" * 150])
def test_a_conflict_about_a_name_as_long_as_a_disk_takes(anna, marie, name):
    book = share_file(anna, marie, name=name)
    book.write_text("by Anna")
    (marie.folder / name).write_text("by Marie")
    anna.settle()
    marie.settle()
    quiet(anna, marie)
    assert sorted(tree(anna.files).values()) == sorted(tree(marie.folder).values()) == ["by Anna", "by Marie"]
    anna.resolve(name, "both")
    quiet(anna, marie)
    assert sorted(tree(anna.files).values()) == sorted(tree(marie.folder).values()) == ["by Anna", "by Marie"]


def test_a_copy_that_cannot_be_made_holds_up_nothing_else(anna, marie, monkeypatch):
    folder = share_folder(anna, marie)
    monkeypatch.setattr(copies, "copy_name", lambda *args: "x" * 300)
    (folder / "a").write_text("by Anna")
    (marie.folder / "recus/a").write_text("by Marie")
    (folder / "b").write_text("b 2")
    anna.settle()
    marie.settle()
    exchange(anna, marie)
    assert (folder / "a").read_text() == (marie.folder / "recus/a").read_text()
    assert (marie.folder / "recus/b").read_text() == "b 2"
    assert "unwritable" in {code for desk in (anna, marie) for code in codes(desk.settle(anna, marie)).values()}
    monkeypatch.undo()
    fast_vanishing(monkeypatch)
    quiet(anna, marie)
    for at in (folder, marie.folder / "recus"):
        assert {p.read_text() for p in [at / "a", *copies_beside(at / "a")]} == {"by Anna", "by Marie"}


# ---- history, readers


def test_an_old_version_is_brought_back_while_somebody_edits(anna, marie):
    book = share_file(anna, marie)
    book.write_text("2")
    quiet(anna, marie)
    first = resolving_versions(anna, "compta.cre")[-1]
    _, touched = resolving.restore(anna.books, "compta.cre", first, "")
    anna.todo |= touched
    anna.settle()
    (marie.folder / "compta.cre").write_text("by Marie")
    marie.settle()
    quiet(anna, marie)
    assert sorted(tree(anna.files).values()) == sorted(tree(marie.folder).values()) == ["1", "by Marie"]
    assert anna.conflicts() == {"compta.cre"}


def test_an_old_version_is_brought_back_over_an_edit_that_was_not_seen_yet(anna, marie):
    book = share_file(anna, marie)
    book.write_text("2")
    quiet(anna, marie)
    book.write_text("3, just saved")
    _, touched = resolving.restore(anna.books, "compta.cre", resolving_versions(anna, "compta.cre")[-1], "")
    anna.work.work(touched)
    quiet(anna, marie)
    assert sorted(tree(anna.files).values()) == sorted(tree(marie.folder).values()) == ["1", "3, just saved"]


def resolving_versions(desk, name):
    return [v.short for v in versions.history(desk.books.ledger.read(), RelPath(name)) if not v.entry.attaches]


def test_a_deleted_file_and_its_folder_come_back(anna, marie):
    folder = share_folder(anna, marie, files=("sub/a", "b"))
    shutil.rmtree(folder / "sub")
    quiet(anna, marie)
    assert tree(marie.folder / "recus") == {"b": "b 1"}
    _, touched = resolving.restore(marie.books, "recus/sub/a", resolving_versions(marie, "recus/sub/a")[-1], "")
    marie.todo |= touched
    quiet(anna, marie)
    assert tree(folder) == tree(marie.folder / "recus") == {"b": "b 1", "sub/a": "sub/a 1"}


def test_what_a_reader_changes_stays_with_the_reader_and_is_not_lost(anna, desks):
    reader = desks("Rita", Role.READER)
    folder = share_folder(anna, reader)
    there = reader.folder / "recus"
    (there / "a").write_text("by Rita")
    (there / "new").write_text("new by Rita")
    (there / "b").unlink()
    worked = reader.settle(anna)
    assert not worked.records
    assert codes(worked)["recus/a"] == "reader" and codes(worked)["recus/new"] == "reader-new"
    (folder / "a").write_text("by Anna")
    quiet(anna, reader)
    assert (there / "a").read_text() == "by Rita"
    assert tree(folder) == {"a": "by Anna", "b": "b 1", "c": "c 1"}
    for name in ("recus/a", "recus/b"):
        _, touched = resolving.restore(reader.books, name, None, "")
        reader.todo |= touched
    quiet(anna, reader)
    assert tree(there) == {"a": "by Anna", "b": "b 1", "c": "c 1", "new": "new by Rita"}
    assert held(reader, "by Rita")


def test_a_folder_in_which_a_reader_keeps_something_is_not_deleted_under_it(anna, desks):
    reader = desks("Rita", Role.READER)
    folder = share_folder(anna, reader, files=("sub/a", "b"))
    (reader.folder / "recus/sub/mine").write_text("by Rita")
    reader.settle(anna)
    shutil.rmtree(folder / "sub")
    exchange(anna, reader)
    assert tree(reader.folder / "recus") == {"b": "b 1", "sub/mine": "by Rita"}
    assert codes(reader.settle())["recus/sub"] == "left-over"
    quiet(anna, reader)
    assert not (folder / "sub").exists()


def test_litter_of_a_file_manager_does_not_bring_a_deleted_folder_back(anna, marie):
    folder = share_folder(anna, marie, files=("sub/a", "b"))
    (marie.folder / "recus/sub/.DS_Store").write_text("litter")
    shutil.rmtree(folder / "sub")
    quiet(anna, marie)
    assert not (folder / "sub").exists()
    assert codes(marie.settle())["recus/sub"] == "left-over"
    (marie.folder / "recus/sub/.DS_Store").unlink()
    quiet(anna, marie)
    assert not (marie.folder / "recus/sub").exists()


# ---- absence


def remember(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in sorted(os.listdir(folder))}


def many(anna, *others, count=40):
    return share_folder(anna, *others, files=tuple(f"{n}.pdf" for n in range(count)))


def confirm(desk, name="recus"):
    desk.look.confirm(RelPath(name))


def test_a_halt_lasts_until_everything_is_back(anna, marie):
    folder, away = many(anna, marie), anna.root / "away"
    away.mkdir()
    for n in range(20):
        (folder / f"{n}.pdf").rename(away / f"{n}.pdf")
    assert codes(anna.settle())["recus"] == "many-deletions"
    for n in range(14):  # somebody puts them back one by one
        (away / f"{n}.pdf").rename(folder / f"{n}.pdf")
        assert codes(anna.settle())["recus"] == "many-deletions"
    anna.restart()
    assert codes(anna.settle())["recus"] == "many-deletions"
    assert len(tree(marie.folder / "recus")) == 40
    (folder / "new.pdf").write_text("new")
    quiet(anna, marie)
    assert (marie.folder / "recus/new.pdf").read_text() == "new"
    for n in range(14, 20):
        (away / f"{n}.pdf").rename(folder / f"{n}.pdf")
    anna.restart()
    assert "recus" not in codes(anna.settle())
    quiet(anna, marie)
    (folder / "3.pdf").unlink()
    quiet(anna, marie)
    assert len(tree(marie.folder / "recus")) == 40 and tree(folder) == tree(marie.folder / "recus")


@pytest.mark.parametrize("restarted", [False, True])
def test_a_person_confirms_what_was_deleted(anna, marie, restarted):
    folder = many(anna, marie)
    for n in range(20):
        (folder / f"{n}.pdf").unlink()
    anna.settle()
    if restarted:
        anna.restart()
    confirm(anna)
    quiet(anna, marie)
    assert len(tree(marie.folder / "recus")) == 20
    for n in range(20, 33):  # and not more than that
        (folder / f"{n}.pdf").unlink()
    assert codes(anna.settle())["recus"] == "many-deletions"


def test_what_trickles_away_halts_too(anna, marie, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(vanishing, "monotonic", lambda: now[0])
    folder = many(anna, marie)
    for n in range(30):  # what a program makes and removes again is no such thing
        (folder / f"{n}.tmp").write_text(str(n))
        anna.settle()
        (folder / f"{n}.tmp").unlink()
        anna.settle()
        now[0] += 1
    now[0] += 100
    assert "recus" not in codes(anna.settle())
    for n in range(30):
        (folder / f"{n}.pdf").unlink()
        anna.settle()
        now[0] += 2
    exchange(anna, marie)
    assert len(tree(marie.folder / "recus")) >= 30
    assert codes(anna.settle())["recus"] == "many-deletions"


def test_newer_versions_of_what_vanished_wait_for_the_person_and_win(anna, marie):
    folder = many(anna, marie)
    for n in range(20):
        (folder / f"{n}.pdf").unlink()
    anna.settle()
    (marie.folder / "recus/1.pdf").write_text("by Marie")
    (marie.folder / "recus/30.pdf").write_text("by Marie too")
    quiet(anna, marie)
    assert (folder / "30.pdf").read_text() == "by Marie too"
    confirm(anna)
    quiet(anna, marie)
    assert tree(folder) == tree(marie.folder / "recus") and len(tree(folder)) == 21
    assert (folder / "1.pdf").read_text() == "by Marie"


@pytest.mark.parametrize("restarted", [False, True])
def test_a_disk_that_is_taken_away_and_comes_back(anna, marie, restarted):
    folder = share_folder(anna, marie, files=("a", "b", "sub/c"))
    away = folder.with_name("away")
    folder.rename(away)
    assert codes(anna.settle())["recus"] == "missing-root"
    (marie.folder / "recus/a").write_text("by Marie")
    (marie.folder / "recus/new").write_text("new")
    exchange(anna, marie)
    folder.mkdir()  # the empty mount point
    assert codes(anna.settle())["recus"] == "root-replaced"
    exchange(anna, marie)
    assert tree(folder) == {} and len(tree(marie.folder / "recus")) == 4
    if restarted:
        anna.restart()
        assert codes(anna.settle())["recus"] == "root-replaced"
    folder.rmdir()
    away.rename(folder)
    if restarted:
        anna.restart()
    assert "recus" not in codes(anna.settle(marie))
    quiet(anna, marie)
    assert tree(folder) == tree(marie.folder / "recus") == {"a": "by Marie", "b": "b 1", "sub/c": "sub/c 1", "new": "new"}


def test_a_folder_restored_from_a_backup_is_taken_with_what_is_new_in_it(anna, marie):
    folder = share_folder(anna, marie, files=("a", "b", "sub/c"))
    away = folder.with_name("away")
    folder.rename(away)
    shutil.copytree(away, folder)
    (folder / "a").write_text("newer")
    (folder / "new").write_text("new")
    os.utime(folder / "new", (1_500_000_000, 1_500_000_000))
    quiet(anna, marie)
    assert tree(marie.folder / "recus") == {"a": "newer", "b": "b 1", "sub/c": "sub/c 1", "new": "new"}


def test_another_disk_of_the_same_name_with_fewer_folders_deletes_none(anna, marie):
    folder = share_folder(anna, marie, files=("a",))
    (folder / "empty").mkdir()
    quiet(anna, marie)
    away = folder.with_name("away")
    folder.rename(away)
    shutil.copytree(away, folder)
    (folder / "empty").rmdir()
    assert codes(anna.settle())["recus"] == "root-replaced"
    quiet(anna, marie)
    assert (marie.folder / "recus/empty").is_dir()


def test_confirming_that_a_disk_was_replaced_goes_on_with_all_that_waited(anna, marie):
    folder = share_folder(anna, marie, files=("a", "b", "c"))
    folder.rename(folder.with_name("away"))
    folder.mkdir()
    (folder / "mine").write_text("mine")
    anna.settle()
    (marie.folder / "recus/a").write_text("by Marie")
    exchange(anna, marie)
    assert tree(folder) == {"mine": "mine"}
    confirm(anna)
    quiet(anna, marie)
    assert tree(folder) == tree(marie.folder / "recus") == {"a": "by Marie", "mine": "mine"}


@pytest.mark.parametrize("how", ["deleted", "emptied", "another folder"])
def test_what_vanished_is_brought_back(anna, marie, how):
    folder = many(anna, marie)
    for n in range(20):
        (folder / f"{n}.pdf").unlink()
    if how != "deleted":
        shutil.rmtree(folder)
        folder.mkdir()
    (folder / "mine").write_text("mine")
    anna.settle()
    (marie.folder / "recus/2.pdf").write_text("by Marie")
    (marie.folder / "recus/3.pdf").unlink()
    exchange(anna, marie)
    assert codes(anna.settle())["recus"] in ("many-deletions", "root-replaced")
    if how == "another folder":
        anna.restart()
        anna.settle()
    anna.todo |= anna.look.bring_back(RelPath("recus"))
    quiet(anna, marie)
    assert tree(folder) == tree(marie.folder / "recus") and len(tree(folder)) == 40
    assert (folder / "2.pdf").read_text() == "by Marie" and (folder / "mine").read_text() == "mine"


def test_a_file_attached_by_itself_goes_by_no_deletion(anna, marie):
    book = share_file(anna, marie)
    for op in (Op.GONE, Op.FOLDER):  # as a member with other software might say
        heads = versions.heads(marie.books.ledger.read(), RelPath("compta.cre"))
        marie.books.record([Entry(op, RelPath("compta.cre"), parents=tuple(heads.refs), act=Act.DELETE)])
        quiet(anna, marie)
        assert book.read_text() == (marie.folder / "compta.cre").read_text() == "1"
    book.write_text("2")
    quiet(anna, marie)
    assert (marie.folder / "compta.cre").read_text() == "2"


def test_an_emptied_folder_deletes_nothing(anna, marie):
    folder = share_folder(anna, marie, files=("a", "b", "sub/c"))
    for path in list(folder.iterdir()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert codes(anna.settle())["recus"] == "many-deletions"
    quiet(anna, marie)
    assert len(tree(marie.folder / "recus")) == 3


def test_something_that_came_back_before_it_was_believed_gone(anna, marie, monkeypatch):
    folder = share_folder(anna, marie)
    monkeypatch.setattr(vanishing, "GONE_FOR", 0.05)
    spots = {name: Spot(RelPath(f"recus/{name}"), (name,)) for name in "ab"}
    for name in "ab":
        (folder / name).rename(folder / f"{name}.old")
    anna.look.look(spots.values())
    for name in "ab":
        (folder / name).write_text(f"{name} 2")  # and no event of b ever comes
    time.sleep(0.06)
    found = anna.look.look([spots["a"]])
    assert not anna.work.work(found.todo - {RelPath("recus/a")}).records
    quiet(anna, marie)
    assert tree(marie.folder / "recus")["b"] == "b 2"


def test_a_missing_file_comes_back_with_other_content(anna, marie):
    book = share_file(anna, marie)
    book.unlink()
    assert codes(anna.settle())["compta.cre"] == "missing-file"
    (marie.folder / "compta.cre").write_text("by Marie")
    quiet(anna, marie)
    assert not book.exists()
    book.write_text("from somewhere else")
    quiet(anna, marie)
    assert sorted(tree(anna.files).values()) == sorted(tree(marie.folder).values()) == ["by Marie", "from somewhere else"]
    assert anna.conflicts() == {"compta.cre"}


def test_a_missing_file_is_brought_back(anna, marie):
    book = share_file(anna, marie)
    book.unlink()
    anna.settle()
    (marie.folder / "compta.cre").write_text("by Marie")
    exchange(anna, marie)
    _, touched = resolving.restore(anna.books, "compta.cre", None, "")
    anna.todo |= touched
    quiet(anna, marie)
    assert book.read_text() == "by Marie"


def test_an_attachment_whose_disk_cannot_be_read_holds_up_no_other(anna, marie, monkeypatch):
    share_folder(anna, marie, files=("sub/a", "b"))
    book = share_file(anna, marie)
    real = root.list_at

    def forbidden(folder):
        if os.readlink(f"/proc/self/fd/{folder}").endswith("recus/sub"):
            raise PermissionError(13, "Permission denied")
        return real(folder)

    for module in ("root", "scan"):
        monkeypatch.setattr(f"p2psync.store.{module}.list_at", forbidden)
    os.utime(anna.files / "recus/sub")
    book.write_text("2")
    worked = anna.settle()
    assert codes(worked)["recus/sub"] == "unreadable"
    quiet(anna, marie)
    assert (marie.folder / "compta.cre").read_text() == "2"
    assert tree(marie.folder / "recus") == {"sub/a": "sub/a 1", "b": "b 1"}


# ---- attaching


@pytest.mark.parametrize("same", [True, False])
def test_a_folder_that_exists_on_the_other_machine_already(anna, marie, same):
    folder = anna.files / "recus"
    folder.mkdir()
    for n in range(200):
        (folder / f"{n}.pdf").write_text(f"receipt {n}")
    anna.attach(folder)
    there = marie.folder / "recus"
    shutil.copytree(folder, there)
    if not same:
        (there / "7.pdf").write_text("another one")
        (there / "more.pdf").write_text("more")
    exchange(anna, marie)
    assert getattr(marie, "fetched", 0) == (0 if same else len("receipt 7"))
    assert tree(folder) == tree(there) and len(tree(folder)) == (200 if same else 202)
    assert marie.conflicts() == anna.conflicts() == (set() if same else {"recus/7.pdf"})
    quiet(anna, marie)


def test_both_attach_folders_of_one_name(anna, marie):
    for desk in (anna, marie):
        folder = desk.files / "recus"
        folder.mkdir()
        (folder / "same").write_text("same")
        (folder / f"by {desk.person}").write_text(desk.person)
        desk.attach(folder)
    quiet(anna, marie)
    assert tree(anna.files / "recus") == tree(marie.files / "recus") == {"same": "same", "by Anna": "Anna", "by Marie": "Marie"}
    assert not anna.conflicts() and not marie.conflicts()


def test_a_file_and_a_folder_attached_under_one_name(anna, marie, zoe):
    (anna.files / "clients").mkdir()
    (anna.files / "clients/a").write_text("a")
    anna.attach(anna.files / "clients")
    (marie.files / "clients").write_text("a list")
    marie.attach(marie.files / "clients")
    quiet(anna, marie, zoe)
    assert tree(anna.files) == {"clients/a": "a"} and tree(marie.files) == {"clients": "a list"}
    assert [codes(desk.settle()).get("clients") for desk in (anna, marie)].count("two-kinds") == 1
    attaching.detach(anna.books, "clients", "")
    quiet(anna, marie, zoe)
    assert tree(anna.files) == {"clients/a": "a"} and tree(marie.files) == {"clients": "a list"}
    (marie.files / "clients").rename(marie.files / "list")
    marie.attach(marie.files / "list")
    exchange(anna, marie, zoe)
    anna.attach(anna.files / "clients")
    (anna.files / "clients/b").write_text("b")
    quiet(anna, marie, zoe)
    assert tree(zoe.folder)["list"] == "a list"
    assert {"a", "b"} <= set(tree(zoe.folder).values())
    assert not any(codes(desk.settle()).get("clients") for desk in (anna, marie, zoe))


def test_two_attachments_never_share_a_place(anna, marie):
    (marie.folder).mkdir(parents=True, exist_ok=True)
    book = marie.folder / "bilan.cre"
    book.write_text("by Marie")
    (anna.files / "bilan.cre").write_text("by Anna")
    share_file(anna, marie, name="x")
    anna.attach(anna.files / "bilan.cre")
    # Marie has not heard of it when she attaches hers, as another one of that name.
    marie.books.place(Location(RelPath("bilan (2).cre"), "file", book))
    marie.books.record([_attach_entry("bilan (2).cre")])
    quiet(anna, marie)
    assert book.read_text() == "by Marie"
    places = {n.text: location.path for n, location in marie.books.locations().items()}
    assert places["bilan.cre"] != places["bilan (2).cre"]
    assert places["bilan.cre"].read_text() == "by Anna"


def _attach_entry(name):
    return Entry(Op.ATTACH_FILE, RelPath(name), act=Act.ATTACH)


def test_detaching_while_somebody_edits(anna, marie):
    book = share_file(anna, marie)
    attaching.detach(anna.books, "compta.cre", "")
    (marie.folder / "compta.cre").write_text("by Marie")
    marie.settle()
    quiet(anna, marie)
    assert (book.read_text(), (marie.folder / "compta.cre").read_text()) == ("1", "by Marie")
    anna.attach(book)
    quiet(anna, marie)
    assert book.read_text() == (marie.folder / "compta.cre").read_text() == "by Marie"
    assert not anna.conflicts() and not marie.conflicts()


def test_attaching_again_after_both_went_on(anna, marie):
    book = share_file(anna, marie)
    attaching.detach(anna.books, "compta.cre", "")
    quiet(anna, marie)
    (marie.folder / "compta.cre").write_text("by Marie")
    book.write_text("by Anna")
    marie.settle()
    anna.attach(book)
    quiet(anna, marie)
    assert sorted(tree(anna.files).values()) == sorted(tree(marie.folder).values()) == ["by Anna", "by Marie"]


def test_a_detached_folder_attached_again_deletes_nothing(anna, marie):
    folder = share_folder(anna, marie, files=("a", "b", "sub/c"))
    attaching.detach(anna.books, "recus", "")
    quiet(anna, marie)
    shutil.rmtree(marie.folder / "recus")
    (marie.folder / "recus").mkdir()
    (folder / "a").write_text("a 2")
    (folder / "b").unlink()
    anna.attach(folder)
    quiet(anna, marie)
    assert tree(folder) == tree(marie.folder / "recus")
    assert tree(folder)["a"] == "a 2" and tree(folder)["sub/c"] == "sub/c 1"


def test_a_conflict_survives_a_detach(anna, marie):
    conflict(anna, marie, folder=True)
    attaching.detach(anna.books, "recus", "")
    quiet(anna, marie)
    anna.attach(anna.files / "recus")
    quiet(anna, marie)
    assert {"by Anna", "by Marie"} <= set(tree(anna.files / "recus").values())
    assert tree(anna.files / "recus") == tree(marie.folder / "recus")


# ---- what a file is


def test_only_the_permission_changes(anna, marie):
    folder = share_folder(anna, marie)
    (folder / "a").chmod(0o755)
    quiet(anna, marie)
    assert os.access(marie.folder / "recus/a", os.X_OK)
    (marie.folder / "recus/a").chmod(0o644)
    quiet(anna, marie)
    assert not os.access(folder / "a", os.X_OK) and not anna.conflicts()


@pytest.mark.parametrize("shows", [(True, False), (True, True), (False, False)])
def test_disks_without_permissions_do_not_argue_about_them(anna, marie, zoe, monkeypatch, shows):
    real = root.stamp_of
    always = {"marie": shows[0], "zoe": shows[1]}

    def stamp_of(status):
        stamp = real(status)
        for desk in (marie, zoe):
            if stamp.kind == "file" and status.st_ino in {p.stat().st_ino for p in desk.folder.rglob("*") if p.is_file()}:
                return type(stamp)(stamp.kind, stamp.size, stamp.mtime_ns, stamp.ctime_ns, stamp.inode, always[desk.person.lower()])
        return stamp

    for module in ("root", "scan", "carryout"):
        monkeypatch.setattr(f"p2psync.store.{module}.stamp_of", stamp_of)
    folder = share_folder(anna, marie, zoe)
    quiet(anna, marie, zoe)
    (marie.folder / "recus/a").write_text("by Marie")
    (folder / "b").chmod(0o755)
    (folder / "c").write_text("by Anna")
    quiet(anna, marie, zoe)
    assert tree(folder) == tree(marie.folder / "recus") == tree(zoe.folder / "recus")
    assert os.access(folder / "b", os.X_OK) and not os.access(folder / "a", os.X_OK) and not os.access(folder / "c", os.X_OK)
    assert not any(desk.conflicts() for desk in (anna, marie, zoe))


def test_a_new_date_alone_is_no_version(anna, marie):
    book = share_file(anna, marie)
    os.utime(book, (1_600_000_000, 1_600_000_000))
    assert not anna.settle().records


@pytest.mark.parametrize("date", [-1, 2**34, 2**33 + 2**31])
def test_dates_that_no_clock_ever_shows(anna, marie, date):
    folder = share_folder(anna, marie)
    (folder / "old").write_text("old")
    try:
        os.utime(folder / "old", (date, date))
    except OverflowError:
        pytest.skip("this disk cannot keep such a date")
    quiet(anna, marie)
    (marie.folder / "recus/old").write_text("2")
    quiet(anna, marie)
    assert (folder / "old").read_text() == "2"


def test_inodes_as_large_as_network_disks_give(anna, marie, monkeypatch):
    stat, fstat = os.stat, os.fstat

    def large(status):
        times = {name: getattr(status, name) for name in TIMES}
        return os.stat_result((status.st_mode, status.st_ino + (1 << 63) + 5, *tuple(status)[2:10]), times)

    with monkeypatch.context() as context:
        context.setattr(os, "stat", lambda *a, **k: large(stat(*a, **k)))
        context.setattr(os, "fstat", lambda *a, **k: large(fstat(*a, **k)))
        folder = share_folder(anna, marie)
        (folder / "a").write_text("2")
        quiet(anna, marie)
        assert (marie.folder / "recus/a").read_text() == "2"
        assert anna.books.locations()[RelPath("recus")].identity[1] > 1 << 63


TIMES = ("st_atime_ns", "st_mtime_ns", "st_ctime_ns")


def test_empty_and_equal_files(anna, marie):
    folder = share_folder(anna, marie)
    for n in range(30):
        (folder / f"empty {n}").write_text("")
        (folder / f"equal {n}").write_text("equal")
    quiet(anna, marie)
    assert tree(folder) == tree(marie.folder / "recus")
    (marie.folder / "recus/empty 3").write_text("no more")
    (folder / "equal 4").write_text("")
    quiet(anna, marie)
    assert tree(folder) == tree(marie.folder / "recus")
    assert not anna.conflicts()


def test_saves_of_one_size_within_one_tick_of_the_clock(anna, marie, monkeypatch):
    """A disk that counts time in large steps: only ctime and mtime are held still, as it would."""
    book = share_file(anna, marie, text="aaaa")
    for text in ("bbbb", "cccc", "dddd"):
        before = book.stat()
        with book.open("r+") as file:
            file.write(text)
        os.utime(book, ns=(before.st_atime_ns, before.st_mtime_ns))
        quiet(anna, marie)
        assert (marie.folder / "compta.cre").read_text() == text


@pytest.mark.parametrize("years", [-10, 10])
def test_clocks_that_are_years_apart_decide_nothing(anna, marie, monkeypatch, years):
    book = share_file(anna, marie)
    marie.clock += years * 365 * 86_400_000
    for turn in range(3):
        (marie.folder / "compta.cre").write_text(f"by Marie {turn}")
        os.utime(marie.folder / "compta.cre", (marie.clock / 1000, marie.clock / 1000))
        quiet(anna, marie)
        assert book.read_text() == f"by Marie {turn}"
        book.write_text(f"by Anna {turn}")
        quiet(anna, marie)
        assert (marie.folder / "compta.cre").read_text() == f"by Anna {turn}"
    anna.clock -= 20 * 365 * 86_400_000
    book.write_text("after the clock went back")
    quiet(anna, marie)
    assert (marie.folder / "compta.cre").read_text() == "after the clock went back"


def test_a_file_with_two_names_is_two_files_elsewhere(anna, marie):
    folder = share_folder(anna, marie)
    os.link(folder / "a", folder / "d")
    quiet(anna, marie)
    assert tree(marie.folder / "recus") == tree(folder)
    (marie.folder / "recus/d").write_text("by Marie")
    quiet(anna, marie)
    assert (folder / "a").read_text() == "a 1" and (folder / "d").read_text() == "by Marie"
    os.link(folder / "a", folder / "e")
    with (folder / "e").open("w") as file:
        file.write("both at once")
    quiet(anna, marie)
    assert (marie.folder / "recus/a").read_text() == (marie.folder / "recus/e").read_text() == "both at once"


def test_a_file_that_does_not_hold_what_was_seen_is_read_again(anna, marie):
    """As when bytes change on the disk and neither size nor times tell."""
    book = share_file(anna, marie)
    os.utime(book, (1_600_000_000, 1_600_000_000))
    anna.settle()
    with anna.books.writing() as db:
        db.execute("UPDATE paths SET digest = ?, listing = ?, agreed_digest = ?, agreed_listing = ?", (b"x" * 32,) * 4)
    (marie.folder / "compta.cre").write_text("by Marie")
    marie.settle()
    quiet(anna, marie)
    assert {"1", "by Marie"} <= {*tree(anna.files).values()} | {text for text in ("1",) if held(anna, text)}


# ---- saves at the wrong moment


@pytest.mark.parametrize("how", ["in place", "by rename", "deleted", "a folder now"])
def test_a_save_between_the_look_and_the_put(anna, marie, monkeypatch, how):
    folder = share_folder(anna, marie)
    (marie.folder / "recus/a").write_text("by Marie")
    marie.settle()
    real = carryout.put_files

    def save_first(root, puts, *rest):
        monkeypatch.setattr(carryout, "put_files", real)
        where = folder / "a"
        if how == "in place":
            where.write_text("by Anna")
        elif how == "by rename":
            (folder / "new").write_text("by Anna")
            (folder / "new").replace(where)
        else:
            where.unlink()
            if how == "a folder now":
                where.mkdir()
                (where / "inside").write_text("by Anna")
        return real(root, puts, *rest)

    monkeypatch.setattr(carryout, "put_files", save_first)
    exchange(anna, marie)
    quiet(anna, marie)
    everything = set(tree(folder).values())
    assert everything == set(tree(marie.folder / "recus").values())
    assert "by Marie" in everything
    assert ("by Anna" in everything) == (how != "deleted")


def test_a_save_in_place_while_the_old_version_is_kept(anna, marie, monkeypatch):
    book = share_file(anna, marie)
    (marie.folder / "compta.cre").write_text("by Marie")
    marie.settle()
    real = anna.sources.keep

    def keep(content, fd, replaced_by):
        real(content, fd, replaced_by)
        monkeypatch.setattr(anna.sources, "keep", real)
        with book.open("r+") as file:
            file.write("2")

    monkeypatch.setattr(anna.sources, "keep", keep)
    quiet(anna, marie)
    assert sorted(tree(anna.files).values()) == sorted(tree(marie.folder).values()) == ["2", "by Marie"]


def test_a_file_that_is_open_waits_and_nothing_else_does(anna, marie, held_open):
    folder = share_folder(anna, marie)
    with held_open(folder / "a"):
        (marie.folder / "recus/a").write_text("by Marie")
        (marie.folder / "recus/b").write_text("by Marie too")
        exchange(anna, marie)
        assert tree(folder)["a"] == "a 1" and tree(folder)["b"] == "by Marie too"
        assert codes(anna.settle(marie))["recus/a"] == "open-here"
        (marie.folder / "recus/a").write_text("by Marie, newer")
        exchange(anna, marie)
    quiet(anna, marie)
    assert tree(folder)["a"] == "by Marie, newer"
    assert not [p for p in folder.iterdir() if p.name.startswith(".p2psync")]


# ---- disks that are full or forbidden


def test_a_full_disk_at_each_step_of_a_round(anna, marie, monkeypatch):
    folder = share_folder(anna, marie)
    steps = [
        (anna.books.vault, "keep"), (marie.books.vault, "keep"), (anna.books, "record"), (marie.books, "record"),
        (marie.work._applying._preparing, "version"), (marie.sources, "keep"), (marie.arrivals, "listing"),
    ]  # fmt: skip
    for number, (where, name) in enumerate(steps):
        real = getattr(where, name)

        def full(*args, **kwargs):
            raise DiskFull(path="/")

        monkeypatch.setattr(where, name, full)
        (folder / "a").write_text(f"by Anna {number}")
        (marie.folder / "recus/b").write_text(f"by Marie {number}")
        (folder / f"new {number}").write_text("x" * 300_000 + str(number))
        for desk, other in ((anna, marie), (marie, anna)) * 2:
            try:
                desk.learn(other)
                desk.settle(other)
            except (DiskFull, NotNoted):
                desk.restart()  # as the keeper does
                monkeypatch.setattr(desk.books, "record", desk.books.record)
        monkeypatch.setattr(where, name, real)
        quiet(anna, marie)
        assert tree(folder) == tree(marie.folder / "recus")
        assert tree(folder)["a"] == f"by Anna {number}" and tree(folder)["b"] == f"by Marie {number}"
    assert not anna.conflicts() and not marie.conflicts()


# ---- large files, of which the history does not hold what is current


@pytest.fixture
def small_vault(monkeypatch):
    """What is larger than 1 KiB counts as large."""
    for module in ("sources", "seeing", "apply", "preparing", "sharing"):
        monkeypatch.setattr(f"p2psync.store.{module}.VAULTED", 1024)


def large(name: str) -> str:
    return f"{name} " + random.Random(name).randbytes(150_000).hex()


def test_a_large_file_overwritten_before_anybody_fetched_it(anna, marie, small_vault):
    book = share_file(anna, marie, text=large("1"))
    book.write_text(large("2"))
    anna.settle()
    marie.learn(anna)
    with book.open("r+") as file:
        file.write(large("3"))
    worked = marie.settle(anna)
    assert codes(worked)["compta.cre"] == "fetching" and RelPath("compta.cre") in worked.wants
    assert (marie.folder / "compta.cre").read_text() == large("1")
    quiet(anna, marie)
    assert (marie.folder / "compta.cre").read_text() == large("3")
    assert not [p for p in marie.folder.iterdir() if p.name.startswith(".p2psync")]


def test_a_large_version_that_nobody_has_any_more_holds_up_nothing(anna, marie, small_vault):
    book = share_file(anna, marie, text=large("1"))
    other = share_file(anna, marie, name="other.cre")
    book.write_text(large("2"))
    anna.settle()
    book.unlink()
    quiet(anna, marie)
    assert (marie.folder / "compta.cre").read_text() == large("1")
    assert codes(marie.settle(anna))["compta.cre"] == "fetching"
    assert codes(anna.settle(marie))["compta.cre"] == "missing-file"
    other.write_text("2")
    (marie.folder / "compta.cre").write_text(large("by Marie"))
    exchange(anna, marie)
    assert (marie.folder / "other.cre").read_text() == "2"
    assert (marie.folder / "compta.cre").read_text() == large("by Marie")
    assert marie.conflicts() == {"compta.cre"}
    marie.resolve("compta.cre", "mine")
    exchange(anna, marie)
    _, touched = resolving.restore(anna.books, "compta.cre", None, "")
    anna.todo |= touched
    quiet(anna, marie)
    assert book.read_text() == (marie.folder / "compta.cre").read_text() == large("by Marie")


def test_a_large_version_that_waits_for_a_program_gives_way_to_a_newer_one(anna, marie, small_vault, held_open):
    book = share_file(anna, marie, text=large("1"))
    with held_open(book):
        for text in ("2", "3"):
            (marie.folder / "compta.cre").write_text(large(text))
            exchange(anna, marie)
        assert book.read_text() == large("1")
        assert len([p for p in anna.files.iterdir() if p.name.startswith(".p2psync")]) == 1
        (marie.folder / "compta.cre").write_text(large("1"))
        exchange(anna, marie)
    quiet(anna, marie)
    assert book.read_text() == large("1")
    assert [p.name for p in anna.files.iterdir()] == ["compta.cre"]


def test_a_conflict_of_large_versions(anna, marie, zoe, small_vault):
    folder = share_folder(anna, marie, zoe)
    places = {anna: folder, marie: marie.folder / "recus", zoe: zoe.folder / "recus"}
    for desk, at in places.items():
        (at / "a").write_text(large(f"by {desk.person}"))
        desk.settle()
    quiet(anna, marie, zoe)
    everything = {large(f"by {desk.person}") for desk in places}
    for at in places.values():
        assert {p.read_text() for p in [at / "a", *copies_beside(at / "a")]} == everything
    (folder / "a").unlink()  # and nobody has to fetch what stands beside
    anna.settle()
    assert (folder / "a").read_text() in everything
    quiet(anna, marie, zoe)
    for at in places.values():
        assert len([at / "a", *copies_beside(at / "a")]) == 2
        assert not [p for p in at.iterdir() if p.name.startswith(".p2psync")]


def test_a_large_file_in_all_of_this(anna, marie, small_vault):
    folder = share_folder(anna, marie)
    (folder / "big").write_text(large("1"))
    quiet(anna, marie)
    there = marie.folder / "recus"
    (folder / "big").rename(folder / "renamed")
    marie.fetched = 0
    quiet(anna, marie)
    assert (there / "renamed").read_text() == large("1") and not (there / "big").exists() and not marie.fetched
    (there / "renamed").unlink()
    quiet(anna, marie)
    assert not (folder / "renamed").exists()
    _, touched = resolving.restore(anna.books, "recus/renamed", resolving_versions(anna, "recus/renamed")[-1], "")
    anna.todo |= touched
    quiet(anna, marie)
    assert (there / "renamed").read_text() == (folder / "renamed").read_text() == large("1")
    (folder / "renamed").write_text(large("by Anna"))
    (there / "renamed").unlink()
    quiet(anna, marie)
    assert (there / "renamed").read_text() == large("by Anna")
    attaching.detach(anna.books, "recus", "")
    (folder / "renamed").write_text(large("later"))
    quiet(anna, marie)
    anna.attach(folder)
    quiet(anna, marie)
    assert (there / "renamed").read_text() == large("later")


def test_sparse_files(anna, marie, small_vault):
    folder = share_folder(anna, marie)
    with (folder / "sparse").open("wb") as file:
        file.truncate(3_000_000)
        file.seek(1_000_000)
        file.write(b"in the middle")
    quiet(anna, marie)
    assert (marie.folder / "recus/sparse").read_bytes() == (folder / "sparse").read_bytes()
