"""Killed at each single step that touches the disk: after a restart everything comes together, and nothing is lost or left behind.

Each test first counts the steps of its scenario, then goes through it again and again on the same machines, killed one step later each
time. By default some of the steps are tried; with P2PSYNC_CRASHES=all every one of them, before and after it is done.
"""

import os
import random
import shutil

import pytest

from p2psync.store import attaching, resolving, sharing, versions
from p2psync.values.names import RelPath
from tests.lan.desks import Desk, fast_place, fast_vanishing, tree
from tests.lan.kill import killing

ALL = os.environ.get("P2PSYNC_CRASHES") == "all"
SOME = 4


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    fast_vanishing(monkeypatch)


@pytest.fixture
def office():
    with fast_place() as place:
        anna, marie = open_office(place)
        yield anna, marie
        for desk in (anna, marie):
            desk.arrivals.close()
            desk.books.close()


def open_office(place):
    anna = Desk(place / "anna", "Anna").found()
    anna.files = place / "anna" / "files"
    (anna.files / "recus/d0").mkdir(parents=True)
    for name in ("a", "d0/one", "d0/two", "x", "swap"):
        (anna.files / "recus" / name).write_text(f"{name} at first")
    (anna.files / "compta.cre").write_text("at first")
    anna.attach(anna.files / "recus", anna.files / "compta.cre")
    marie = Desk(place / "marie", "Marie").join(anna, anna.invite("Marie"))
    together(anna, marie)
    return anna, marie


def together(anna, marie):
    for _ in range(3):
        anna.learn(marie)
        anna.settle(marie)
        marie.learn(anna)
        marie.settle(anna)


def points(steps: int):
    """Which steps to be killed at: (step, whether it was still done)."""
    everything = [(at, after) for at in range(steps) for after in (False, True)]
    return everything if ALL or len(everything) <= SOME else sorted(random.Random(steps).sample(everything, SOME))


def trees(desk):
    places = {n.text: location.path for n, location in desk.books.locations().items()}
    found = {name: path.read_text() for name, path in places.items() if path.is_file()}
    for name, path in places.items():
        if path.is_dir():
            found |= {f"{name}/{below}": text for below, text in tree(path).items()}
            found |= {f"{name}/{below.relative_to(path)}/": None for below in path.rglob("*") if below.is_dir()}
    return found


def check(anna, marie, why):
    """They hold the same, nothing is left over, nothing is lost, and nobody has anything more to say."""
    together(anna, marie)
    assert trees(anna) == trees(marie), why
    assert anna.conflicts() == marie.conflicts(), why
    for desk in (anna, marie):
        assert not desk.settle().records, why
        sharing.finish(desk.books, desk.sources)
        assert not list(desk.root.rglob(".p2psync*")), why
    for version in versions.history(anna.books.ledger.read(), None):
        if version.entry.content is not None:
            assert any(desk.sources.complete(version.entry.content) for desk in (anna, marie)), why


def go_through(office, prepare, act, victim):
    """Do ``prepare`` and ``act`` (of the desk ``victim``) again and again, killed at one step after the other."""
    anna, marie = office
    prepare(0)
    with killing() as counted:
        act(0)
    check(anna, marie, "not killed at all")
    for turn, (at, after) in enumerate(points(len(counted.steps)), 1):
        prepare(turn)
        with killing(at, after=after) as killed:
            act(turn)
        why = f"killed {'after' if after else 'before'} step {at}, {killed.steps[-1:]}"
        victim.restart()
        together(anna, marie)
        yield turn, why
        check(anna, marie, why)


def change(anna, turn):
    """All kinds of changes in one go, made while nobody looks."""
    folder = anna.files / "recus"
    (folder / "a").write_text(f"a {turn}")
    (anna.files / "compta.cre").write_text(f"saved {turn} " + "x" * 1000)
    (folder / f"new {turn}").write_text(f"new {turn}")
    (folder / f"new {turn - 1}").unlink(missing_ok=True)
    (folder / f"d{turn}").rename(folder / f"d{turn + 1}")
    (folder / "x").chmod(0o755 if turn % 2 else 0o644)
    swap = folder / "swap"
    if swap.is_dir():
        shutil.rmtree(swap)
        swap.write_text(f"a file {turn}")
    else:
        swap.unlink()
        (swap / "deep").mkdir(parents=True)
        (swap / "deep/inside").write_text(f"inside {turn}")


def test_killed_while_recording(office):
    anna, marie = office
    for turn, why in go_through(office, lambda turn: change(anna, turn), lambda turn: anna.settle(), anna):
        assert trees(anna)["recus/a"] == f"a {turn}", why
        assert f"recus/new {turn}" in trees(marie) and f"recus/new {turn - 1}" not in trees(marie), why
        assert f"recus/d{turn + 1}/one" in trees(marie) and f"recus/d{turn}/" not in trees(marie), why
        assert not anna.conflicts(), why


def test_killed_while_applying(office):
    anna, marie = office

    def prepare(turn):
        change(anna, turn)
        anna.settle()
        marie.learn(anna)

    for turn, why in go_through(office, prepare, lambda turn: marie.settle(anna), marie):
        assert trees(marie)["compta.cre"].startswith(f"saved {turn} "), why
        assert os.access(marie.folder / "recus/x", os.X_OK) == bool(turn % 2), why
        assert not marie.conflicts(), why


def test_killed_while_learning(office):
    anna, marie = office

    def prepare(turn):
        change(anna, turn)
        anna.settle()

    for turn, why in go_through(office, prepare, lambda turn: marie.learn(anna), marie):
        assert trees(marie)["recus/a"] == f"a {turn}", why


def disagree(anna, marie, turn):
    for desk, at in ((anna, anna.files), (marie, marie.folder)):
        for name in ("recus/x", "compta.cre"):
            (at / name).write_text(f"{name} by {desk.person} {turn}")
        desk.settle()


@pytest.mark.parametrize("victim", [0, 1])
def test_killed_while_a_conflict_arises(office, victim):
    anna, marie = office
    desk, other = (anna, marie) if not victim else (marie, anna)

    def prepare(turn):
        for name in anna.conflicts():
            anna.resolve(name, "both" if turn % 3 == 2 else "mine")
        together(anna, marie)
        assert not anna.conflicts()
        disagree(anna, marie, turn)
        desk.learn(other)

    for turn, why in go_through(office, prepare, lambda turn: desk.settle(other), desk):
        assert anna.conflicts() == {"recus/x", "compta.cre"}, why
        for at in (anna.files, marie.folder):
            texts = set(tree(at).values())
            assert {f"{n} by {p} {turn}" for n in ("recus/x", "compta.cre") for p in ("Anna", "Marie")} <= texts, why
            assert len([p for p in (at / "recus").iterdir() if p.name.startswith("x (") and str(turn) in p.read_text()]) == 1, why


@pytest.mark.parametrize("keep", ["mine", "theirs", "both"])
@pytest.mark.parametrize("victim", [0, 1])
def test_killed_while_a_conflict_is_resolved(office, victim, keep):
    anna, marie = office
    desk, other = (anna, marie) if not victim else (marie, anna)

    def prepare(turn):
        disagree(anna, marie, turn)
        together(anna, marie)
        if victim:
            for name in sorted(anna.conflicts()):
                anna.resolve(name, keep)
            anna.settle(marie)
            marie.learn(anna)

    def act(turn):
        for name in sorted(anna.conflicts()) if not victim else ():
            anna.resolve(name, keep)
        desk.settle(other)

    for turn, why in go_through(office, prepare, act, desk):
        for name in sorted(anna.conflicts()):  # it came to nothing, and the person chooses again
            anna.resolve(name, keep)
            together(anna, marie)
        assert not anna.conflicts(), why
        kept = {"mine": {"Anna"}, "theirs": {"Marie"}, "both": {"Anna", "Marie"}}[keep]
        for at in (anna.files, marie.folder):
            assert {t for t in tree(at).values() if t.endswith(f" {turn}")} == {
                f"{n} by {p} {turn}" for n in ("recus/x", "compta.cre") for p in kept
            }, why


@pytest.mark.parametrize("victim", [0, 1])
def test_killed_while_something_is_attached_and_detached(office, victim):
    anna, marie = office
    desk, other = (anna, marie) if not victim else (marie, anna)

    def prepare(turn):
        folder = anna.files / f"folder {turn}"
        (folder / "sub").mkdir(parents=True)
        (folder / "sub/a").write_text(f"a {turn}")
        there = marie.folder / f"folder {turn}"
        (there / "sub").mkdir(parents=True)
        (there / "sub/a").write_text(f"a {turn}" if turn % 2 else f"another a {turn}")
        if victim:
            take(turn)
            anna.settle()
            marie.learn(anna)

    def take(turn):
        anna.attach(anna.files / f"folder {turn}")
        if f"folder {turn - 1}" in anna.attached():
            anna.todo |= {RelPath(f"folder {turn - 1}")}
            attaching.detach(anna.books, f"folder {turn - 1}", "")

    def act(turn):
        if not victim:
            take(turn)
        desk.settle(other)

    for turn, why in go_through(office, prepare, act, desk):
        if f"folder {turn}" not in anna.attached():
            anna.attach(anna.files / f"folder {turn}")
            together(anna, marie)
        texts = set(tree(marie.folder / f"folder {turn}").values())
        assert texts == ({f"a {turn}"} if turn % 2 else {f"a {turn}", f"another a {turn}"}), why
        for name in sorted(anna.conflicts()):
            if name.startswith("folder"):
                anna.resolve(name, "both")


def test_killed_while_an_old_version_is_brought_back(office):
    anna, marie = office
    first = [v.short for v in versions.history(anna.books.ledger.read(), RelPath("recus/a")) if not v.entry.attaches][-1]

    def prepare(turn):
        change(anna, turn)
        together(anna, marie)

    def act(turn):
        anna.todo |= resolving.restore(anna.books, "recus/a", first, "")[1]
        anna.settle()

    for turn, why in go_through(office, prepare, act, anna):
        assert trees(marie)["recus/a"] in (f"a {turn}", "a at first"), why


def test_killed_while_applying_many_deletions(office):
    anna, marie = office
    folder = anna.files / "recus"

    def prepare(turn):
        for n in range(12):
            (folder / f"many {n}").write_text(f"many {n} {turn}")
        together(anna, marie)
        for n in range(12):
            (folder / f"many {n}").unlink()
        anna.settle()
        anna.look.confirm(RelPath("recus"))
        anna.settle()
        marie.learn(anna)

    for _turn, why in go_through(office, prepare, lambda turn: marie.settle(anna), marie):
        assert not marie.books.locations()[RelPath("recus")].halted, why
        assert "recus/many 3" not in trees(marie), why


def test_killed_while_much_was_deleted_and_confirmed(office):
    anna, marie = office
    folder = anna.files / "recus"

    def prepare(turn):
        for n in range(12):
            (folder / f"many {n}").write_text(f"many {n} {turn}")
        together(anna, marie)
        for n in range(12):
            (folder / f"many {n}").unlink()
        anna.settle()

    def act(turn):
        anna.look.confirm(RelPath("recus"))
        anna.settle()

    for _turn, why in go_through(office, prepare, act, anna):
        if anna.books.locations()[RelPath("recus")].halted:
            assert "recus/many 3" in trees(marie), why
            act(0)
        together(anna, marie)
        assert "recus/many 3" not in trees(marie), why


def test_killed_while_a_large_version_arrives(office, monkeypatch):
    for module in ("sources", "seeing", "apply", "preparing", "sharing"):
        monkeypatch.setattr(f"p2psync.store.{module}.VAULTED", 1024)
    anna, marie = office

    def prepare(turn):
        for name in ("recus/big", "compta.cre"):
            (anna.files / name).write_text(random.Random(f"{name} {turn}").randbytes(150_000).hex())
        anna.settle()
        marie.learn(anna)

    for turn, why in go_through(office, prepare, lambda turn: marie.settle(anna), marie):
        for name in ("recus/big", "compta.cre"):
            assert trees(marie)[name] == random.Random(f"{name} {turn}").randbytes(150_000).hex(), why
