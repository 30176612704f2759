"""Absence never deletes: every way in which what is attached can vanish, at every moment, with whatever comes afterwards.

The table is tests/lan/vanish. Machines without a network, on a real disk; tests/real/test_mounts has real mounts and whole daemons.
"""

import os
import shutil

import pytest

from p2psync.store import resolving, versions
from p2psync.store.locating import spell
from p2psync.store.spots import Spot
from p2psync.values.names import RelPath
from tests.lan.desks import Desk, exchange, fast_place, fast_vanishing, tree
from tests.lan.vanish import WAYS, Disk


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    fast_vanishing(monkeypatch)


@pytest.fixture
def office():
    """Anna, whose disk it is about, and Marie."""
    with fast_place() as place:
        anna = Desk(place / "anna", "Anna").found()
        disk = Disk(place / "anna" / "disk").fill()
        (place / "anna" / "other").mkdir()
        marie = Desk(place / "marie", "Marie").join(anna, anna.invite("Marie"))
        anna.attach(disk.file, disk.folder)
        exchange(anna, marie)
        assert tree(marie.folder) == disk.files()
        yield anna, marie, disk
        for desk in (anna, marie):
            desk.arrivals.close()
            desk.books.close()


def tops(worked) -> dict[str, str]:
    """What is shown of the attachments themselves."""
    return {shown: a.code for shown, a in worked.attention.items() if a is not None and "/" not in shown}


def records_of(desk) -> int:
    return sum(end.seq for log, end in desk.books.journal.ends.items() if log[0] == desk.home.device)


@pytest.mark.parametrize("when", ["seen at once", "seen at the next start", "during a transfer"])
@pytest.mark.parametrize("name", WAYS)
def test_what_vanishes_is_deleted_nowhere_and_goes_on_when_it_is_back(office, name, when):
    anna, marie, disk = office
    way = WAYS[name]
    said = records_of(anna)
    if when == "during a transfer":
        (marie.folder / "recus/1.pdf").write_text("by Marie")
        (marie.folder / "compta.cre").write_text("by Marie")
        marie.settle()
        anna.learn(marie)
        anna.settle(patience=0.0)  # it is wanted, and nobody gives it
    before = tree(marie.folder)
    with way.go(disk):
        if when == "seen at the next start":
            anna.restart()
        shown = tops(anna.settle(patience=0.0))
        assert (shown.get("compta.cre"), shown.get("recus")) == (way.file, way.folder) or when == "during a transfer"
        exchange(anna, marie)
        assert {name: text for name, text in tree(marie.folder).items() if name in before} == before
        (marie.folder / "recus/2.pdf").write_text("by Marie, meanwhile")
        (marie.folder / "recus/2026/new.pdf").write_text("new")
        (marie.folder / "compta.cre").write_text("by Marie, meanwhile")
        exchange(anna, marie)
        after = before | {"recus/2.pdf": "by Marie, meanwhile", "recus/2026/new.pdf": "new", "compta.cre": "by Marie, meanwhile"}
        assert {name: text for name, text in tree(marie.folder).items() if name in after} == after
        if "cloud tool replaces" not in name:
            assert records_of(anna) == said  # nobody did anything
    if when == "seen at the next start":
        anna.restart()
    *_, last, _ = exchange(anna, marie, rounds=3)
    if "cloud tool replaces" in name:
        after |= {file: text for file, text in disk.files().items() if file.endswith(".cloud")}
    assert disk.files() == after and tree(marie.folder) == after
    assert not anna.conflicts() and not tops(last)


HALTS = [name for name, way in WAYS.items() if way.folder in ("many-deletions", "root-replaced")]


@pytest.mark.parametrize("then", ["confirmed", "brought back"])
@pytest.mark.parametrize("name", HALTS)
def test_a_person_says_what_a_halt_meant(office, name, then):
    anna, marie, disk = office
    with WAYS[name].go(disk):
        anna.settle(patience=0.0)
        (marie.folder / "recus/2.pdf").write_text("by Marie, meanwhile")
        exchange(anna, marie)
        mine = {f"recus/{shown}": text for shown, text in tree(disk.folder).items()}
        if then == "confirmed":
            anna.look.confirm(RelPath("recus"))
            expected = {**mine, "recus/2.pdf": "by Marie, meanwhile"}
        else:
            anna.todo |= anna.look.bring_back(RelPath("recus"))
            expected = {**mine, **{shown: text for shown, text in tree(marie.folder).items() if shown != "compta.cre"}}
        *_, last, _ = exchange(anna, marie, rounds=3)
        assert {f"recus/{shown}": text for shown, text in tree(disk.folder).items()} == expected
        assert tree(marie.folder) == {**expected, "compta.cre": "compta 1"}
        assert "recus" not in tops(last) and not anna.conflicts()


@pytest.mark.parametrize("restarted", [False, True])
def test_two_attached_folders_that_change_places(office, restarted):
    """With nearly the same in both, so that nothing is missed in either."""
    anna, marie, disk = office
    other = disk.path / "factures"
    shutil.copytree(disk.folder, other)
    (other / "3.pdf").write_text("an invoice")
    anna.attach(other)
    exchange(anna, marie)
    before = tree(marie.folder)
    disk.folder.rename(disk.away)
    other.rename(disk.folder)
    disk.away.rename(other)
    if restarted:
        anna.restart()
    shown = tops(anna.settle(patience=0.0))
    assert shown == {"recus": "root-differs", "factures": "root-differs"}
    (marie.folder / "recus/3.pdf").write_text("by Marie")
    exchange(anna, marie)
    assert tree(marie.folder) == before | {"recus/3.pdf": "by Marie"}
    disk.folder.rename(disk.away)
    other.rename(disk.folder)
    disk.away.rename(other)
    exchange(anna, marie)
    assert tree(marie.folder) == disk.files() == before | {"recus/3.pdf": "by Marie"} and not anna.conflicts()


def test_a_file_attached_by_itself_that_is_emptied_is_a_version_like_any_other(office):
    """Some programs begin so; what it held is in the history."""
    anna, marie, disk = office
    disk.file.write_bytes(b"")
    exchange(anna, marie)
    assert (marie.folder / "compta.cre").read_bytes() == b""
    (old,) = [v for v in versions.history(anna.books.ledger.read(), RelPath("compta.cre")) if v.entry.content and v.entry.content.size]
    _, touched = resolving.restore(marie.books, "compta.cre", old.short, "")
    marie.todo |= touched
    exchange(marie, anna)
    assert disk.file.read_text() == (marie.folder / "compta.cre").read_text() == "compta 1"


@pytest.mark.parametrize("meanwhile", ["nothing", "another folder"])
def test_what_was_to_be_looked_at_while_the_folder_was_away_is_decided_about_when_it_is_back(office, meanwhile):
    """Whoever asked counts the path as behind until then, though nothing about it is unsettled (seed 231178)."""
    anna, _, disk = office
    for file in disk.folder.rglob("*.pdf"):
        os.utime(file, (1, 1))  # what is not fresh is not read again unasked
    anna.settle()
    path = RelPath("recus/1.pdf")
    away = disk.folder.with_name("away")
    disk.folder.rename(away)
    if meanwhile == "another folder":
        shutil.copytree(away, disk.folder)
        (disk.folder / "2.pdf").unlink()
    spot = spell(anna.books, path)
    assert path not in anna.look.look({spot}).todo
    assert path not in anna.look.look(set()).todo
    if meanwhile == "another folder":
        shutil.rmtree(disk.folder)
    away.rename(disk.folder)
    assert path in anna.look.look({Spot(RelPath("recus"), ())}).todo
    assert anna.look.look(set()).todo == set()


def test_a_confirmation_that_finds_all_in_order_again_says_so(office):
    """What was missing had come back unheard: nothing waited any more, and it was shown as halted for ever (seed 230535)."""
    anna, _, disk = office
    one = disk.folder / "0.pdf"
    shutil.copytree(disk.folder, disk.away)
    shutil.rmtree(disk.folder)
    shutil.copytree(disk.away, disk.folder)
    one.unlink()
    assert tops(anna.settle()) == {"recus": "root-replaced"}
    shutil.copy2(disk.away / "0.pdf", one)
    anna.look.confirm(RelPath("recus"))
    assert not anna.books.locations()[RelPath("recus")].halted
    assert anna.look.look(set()).attention["recus"] is None
