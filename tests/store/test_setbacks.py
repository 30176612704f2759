"""A disk that is older than the ledger: many files that go back at once wait for a person, one is a version like any other."""

import os
import shutil

import pytest

from p2psync.store import vanishing
from p2psync.values.names import RelPath
from tests.lan.desks import Desk, exchange, fast_place, fast_vanishing, tree

RECUS = RelPath("recus")
NAMES = [f"{n}.pdf" for n in range(30)]


@pytest.fixture
def office(monkeypatch):
    """Anna and Marie, with 30 files of which there are two versions each, and the first ones in a backup."""
    fast_vanishing(monkeypatch)
    with fast_place() as place:
        anna = Desk(place / "anna", "Anna").found()
        folder = anna.files / "recus"
        folder.mkdir(parents=True)
        for n, name in enumerate(NAMES):
            write(folder / name, f"{name} 1", 1_700_000_000 + n)
        marie = Desk(place / "marie", "Marie").join(anna, anna.invite("Marie"))
        anna.attach(folder)
        exchange(anna, marie)
        shutil.copytree(folder, place / "backup")
        for n, name in enumerate(NAMES):
            write(folder / name, f"{name} 2", 1_750_000_000 + n)
        exchange(anna, marie)
        assert set(tree(marie.folder / "recus").values()) == {f"{name} 2" for name in NAMES}
        yield anna, marie, folder
        for desk in (anna, marie):
            desk.arrivals.close()
            desk.books.close()


def write(path, text, when):
    path.write_text(text)
    os.utime(path, (when, when))


def codes(worked):
    return {shown: a.code for shown, a in worked.attention.items() if a is not None}


def shown(found):
    """What Anna's machine has shown last, as its status does."""
    everything: dict = {}
    for worked in found[::2]:
        everything |= worked.attention
    return {shown: a.code for shown, a in everything.items() if a is not None}


def put_back(folder, names, copy=shutil.copy2):
    for name in names:
        copy(folder.parent.parent.parent / "backup" / name, folder / name)


def versions_at(folder):
    return sorted(text.rpartition(" ")[2] for text in tree(folder).values())


@pytest.mark.parametrize("then", ["brought back", "confirmed", "mended by hand"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_backup_that_was_put_back_waits_for_a_person(office, then, restarted):
    anna, marie, folder = office
    newer = {name: (folder / name).read_text() for name in NAMES[:20]}
    put_back(folder, NAMES[:20])
    write(folder / "new.pdf", "new 2", 1_750_000_000)
    if restarted:
        anna.restart()
    assert codes(anna.settle(patience=0.0))["recus"] == "older-copies"
    (marie.folder / "recus/1.pdf").write_text("by Marie 3")
    (marie.folder / "recus/25.pdf").write_text("by Marie 3")
    exchange(anna, marie)
    if restarted:
        anna.restart()
    assert shown(exchange(anna, marie)) == {"recus": "older-copies"}
    assert versions_at(marie.folder / "recus") == ["2"] * 29 + ["3"] * 2  # what is new goes on
    assert versions_at(folder) == ["1"] * 20 + ["2"] * 10 + ["3"]
    if then == "brought back":
        anna.todo |= anna.work.setbacks.bring_back(anna.books.locations()[RECUS])
    elif then == "confirmed":
        anna.todo |= anna.work.setbacks.confirm(anna.books.locations()[RECUS])
    else:
        for name, text in newer.items():
            (folder / name).write_text(text)
    *_, last, _ = exchange(anna, marie, rounds=3)
    assert not codes(last) or then == "confirmed"
    assert tree(folder) == tree(marie.folder / "recus")
    if then == "confirmed":
        assert anna.conflicts() == {"recus/1.pdf"}  # Marie's edit of what went back
        assert versions_at(folder) == ["1"] * 20 + ["2"] * 10 + ["3"] * 2  # one of them beside 1.pdf
    else:
        assert not anna.conflicts() and versions_at(folder) == ["2"] * 29 + ["3"] * 2
    assert anna.books.locations()[RECUS].halted is None


@pytest.mark.parametrize(
    ("count", "how"), [(1, "with its date"), (5, "with its date"), (20, "with the date of today")], ids=lambda value: str(value)
)
def test_what_is_a_save_like_any_other(office, count, how):
    """One file that a person fetched from a backup; or many that a program wrote anew, as when branches are switched."""
    anna, marie, folder = office
    put_back(folder, NAMES[:count], shutil.copy2 if how == "with its date" else lambda source, to: to.write_bytes(source.read_bytes()))
    found = exchange(anna, marie)
    assert not any(codes(worked) for worked in found)
    assert versions_at(marie.folder / "recus") == ["1"] * count + ["2"] * (30 - count) and not anna.conflicts()


def test_a_folder_replaced_by_an_older_copy_of_it_asks_whatever_the_dates_say(office):
    anna, marie, folder = office
    folder.rename(folder.with_name("away"))
    shutil.copytree(folder.with_name("away"), folder)
    write(folder / "3.pdf", "3.pdf 1", 1_900_000_000)
    write(folder / "4.pdf", "4.pdf 3", 1_900_000_000)
    assert shown(exchange(anna, marie)) == {"recus": "older-copies"}
    assert (marie.folder / "recus/3.pdf").read_text() == "3.pdf 2" and (marie.folder / "recus/4.pdf").read_text() == "4.pdf 3"
    anna.todo |= anna.work.setbacks.bring_back(anna.books.locations()[RECUS])
    *_, last, _ = exchange(anna, marie)
    assert not codes(last) and tree(folder) == tree(marie.folder / "recus") and (folder / "3.pdf").read_text() == "3.pdf 2"


def test_contents_that_were_taken_from_many_files_at_once(office):
    anna, marie, folder = office
    for name in NAMES[:12]:
        (folder / name).write_bytes(b"")
    assert shown(exchange(anna, marie)) == {"recus": "older-copies"}
    assert versions_at(marie.folder / "recus") == ["2"] * 30
    anna.todo |= anna.work.setbacks.bring_back(anna.books.locations()[RECUS])
    exchange(anna, marie)
    assert versions_at(folder) == versions_at(marie.folder / "recus") == ["2"] * 30
    (folder / "1.pdf").write_bytes(b"")  # one is a version like any other
    exchange(anna, marie)
    assert (marie.folder / "recus/1.pdf").read_bytes() == b""


def test_what_goes_back_bit_by_bit_halts_too(office, monkeypatch):
    anna, marie, folder = office
    now = [0.0]
    monkeypatch.setattr(vanishing, "monotonic", lambda: now[0])
    monkeypatch.setattr(vanishing, "GONE_FOR", 1.2)
    said: dict = {}
    for name in NAMES:
        put_back(folder, [name])
        anna.settle(patience=0.0)
        now[0] += 2
        said |= codes(anna.settle(patience=0.0))
    assert said["recus"] == "older-copies"
    exchange(anna, marie)
    assert versions_at(marie.folder / "recus").count("2") >= 20


def test_a_disk_that_goes_back_and_misses_files_as_well(office):
    anna, marie, folder = office
    put_back(folder, NAMES[:12])
    for name in NAMES[15:]:
        (folder / name).unlink()
    *_, last, _ = exchange(anna, marie)
    assert codes(last)["recus"] in ("older-copies", "many-deletions")
    assert versions_at(marie.folder / "recus") == ["2"] * 30
    anna.todo |= anna.work.setbacks.bring_back(anna.books.locations()[RECUS]) | anna.look.bring_back(RECUS)
    *_, last, _ = exchange(anna, marie, rounds=3)
    assert not codes(last) and versions_at(folder) == versions_at(marie.folder / "recus") == ["2"] * 30


@pytest.mark.parametrize("confirmed", [False, True])
def test_the_folder_of_another_client_in_the_place_of_this_one(office, confirmed):
    """The same names, as all clients have them, and nothing is missed."""
    anna, marie, folder = office
    away = folder.with_name("away")
    folder.rename(away)
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_text(f"{name} of another client 3")
    *_, last, _ = exchange(anna, marie)
    assert codes(last) == {"recus": "root-differs"}
    anna.restart()
    (marie.folder / "recus/2.pdf").write_text("by Marie 3")
    *_, last, _ = exchange(anna, marie)
    assert codes(last) == {"recus": "root-differs"} and "another" not in str(tree(marie.folder / "recus"))
    assert versions_at(folder) == ["3"] * 30 and "by Marie 3" not in tree(folder).values()
    if confirmed:
        anna.look.confirm(RECUS)
        exchange(anna, marie, rounds=3)
        assert tree(folder) == tree(marie.folder / "recus") and "another" in str(tree(folder))
        assert anna.conflicts() == {"recus/2.pdf"}
        return
    shutil.rmtree(folder)
    away.rename(folder)
    *_, last, _ = exchange(anna, marie, rounds=3)
    assert not codes(last) and tree(folder) == tree(marie.folder / "recus") and not anna.conflicts()
    assert versions_at(folder) == ["2"] * 29 + ["3"]


def test_single_files_that_go_back_together(office):
    anna, marie, _ = office
    files = [anna.files / f"{n}.cre" for n in range(13)]
    for file in files:
        write(file, f"{file.name} 1", 1_700_000_000)
    anna.attach(*files)
    exchange(anna, marie)
    for file in files:
        write(file, f"{file.name} 2", 1_750_000_000)
    exchange(anna, marie)
    for file in files[:12]:
        write(file, f"{file.name} 1", 1_700_000_000)
    assert shown(exchange(anna, marie)) == {file.name: "older-copy" for file in files[:12]}
    assert (marie.folder / "3.cre").read_text() == "3.cre 2"
    for file in files[:12]:
        anna.todo |= anna.work.setbacks.bring_back(anna.books.locations()[RelPath(file.name)])
    *_, last, _ = exchange(anna, marie)
    assert not codes(last) and {file.read_text()[-1] for file in files} == {"2"}
