"""Two machines without a network over modelled disks: random saves, power cuts at random steps, and nothing is lost or left behind."""

import os
import random
import shutil

import pytest

from p2psync.store import listings, versions
from p2psync.store.spots import Spot
from p2psync.values.names import RelPath
from tests.lan.desks import Desk, exchange, fast_place, fast_vanishing, tree
from tests.sim.disk import Disk, Killed, Traits, interposed
from tests.store.test_crash_points import trees

SEEDS = int(os.environ.get("P2PSYNC_DISK_SEEDS", "4"))
FIRST = int(os.environ.get("P2PSYNC_DISK_FIRST", "0"))
TURNS = 6
RECUS = RelPath("recus")
NAMES = ("a", "b", "sub/c", "sub/d")


class Machine:
    """A desk on a disk of its own."""

    def __init__(self, place, person, chance):
        self.chance = chance
        (place / person).mkdir()
        self.disk = Disk(place / person, random.Random(f"{person} {chance.random()}"), Traits())
        self.person, self.place = person, place / person
        self.desk: Desk
        self.is_careful = True

    def edit(self, turn):
        """What people do at their desks between two looks of the daemon. Hardly any program waits for the disk when it saves."""
        with self.disk.program():
            folder = self.folder
            for name in self.chance.sample(NAMES, 2):
                path = folder / name
                what = self.chance.choice(("save", "save", "save by rename", "remove", "run"))
                if what == "remove":
                    path.unlink(missing_ok=True)
                elif what == "run" and path.exists():
                    path.chmod(path.stat().st_mode ^ 0o111)
                else:
                    path.parent.mkdir(exist_ok=True)
                    text = f"{name} by {self.person} {turn} " * self.chance.choice((1, 300))
                    where = path.with_name("~tmp") if what == "save by rename" else path
                    where.write_text(text)
                    os.replace(where, path)
            if self.chance.random() < 0.1 and (folder / "sub").exists():
                shutil.rmtree(folder / "sub")
        self.is_careful = self.chance.random() < 0.6
        if self.is_careful:
            self.disk.settle()

    @property
    def folder(self):
        return self.desk.files / "recus" if self.person == "anna" else self.desk.folder / "recus"

    def contents(self):
        """The whole versions that people have here."""
        return {path.read_text() for path in self.folder.rglob("*") if path.is_file() and ".p2psync" not in path.name}


def opened(place, chance):
    anna, marie = Machine(place, "anna", chance), Machine(place, "marie", chance)
    return anna, marie


def begin(anna, marie):
    for machine in (anna, marie):
        machine.desk = Desk(machine.place, machine.person.title(), random.Random(machine.person))
        machine.disk.settle()
    anna.desk.found()
    with anna.disk.program():
        (anna.desk.files / "recus").mkdir(parents=True)
        (anna.desk.files / "recus/a").write_text("a at first")
    anna.desk.attach(anna.desk.files / "recus")
    marie.desk.join(anna.desk, anna.desk.invite("Marie"))
    together(anna, marie)


def together(anna, marie, turns=3):
    for _ in range(turns):
        anna.desk.learn(marie.desk)
        anna.desk.settle(marie.desk)
        marie.desk.learn(anna.desk)
        marie.desk.settle(anna.desk)


def recover(machine):
    """The machine is on again after a power cut, or its daemon after a kill."""
    if machine.chance.random() < 0.7:
        machine.disk.crash()
    else:
        machine.disk.lose_process()
    machine.desk.restart()


def history(desk):
    return {v.ref: v.entry.content for v in versions.history(desk.books.ledger.read(), None) if v.entry.content is not None}


def check(anna, marie, why):
    together(anna, marie)
    for machine in (anna, marie):
        if machine.desk.books.locations()[RECUS].halted:  # the person did mean to delete all that
            machine.desk.look.confirm(RECUS)
            together(anna, marie)
    assert trees(anna.desk) == trees(marie.desk), why
    assert anna.desk.conflicts() == marie.desk.conflicts(), why
    for machine in (anna, marie):
        assert not machine.desk.settle().records, why
        assert not list(machine.place.rglob(".p2psync*")), why
    for content in history(anna.desk).values():
        assert any(machine.desk.sources.complete(content) for machine in (anna, marie)), why


def one_turn(anna, marie, turn, chance):
    """Both save, one of them has its power cut at some step of what follows; what it does is done again afterwards."""
    for machine in (anna, marie):
        if chance.random() < 0.7:
            machine.edit(turn)
    victim = chance.choice((anna, marie))
    victim.disk.kill_at(chance.randrange(50), after=chance.random() < 0.5)
    seen = {text for machine in (anna, marie) if machine.is_careful for text in machine.contents()}
    try:
        together(anna, marie, 2)
    except Killed:
        recover(victim)
    victim.disk.kill_at(None)
    return seen


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_power_cuts_at_any_step(seed, monkeypatch):
    fast_vanishing(monkeypatch)
    chance = random.Random(seed)
    with fast_place() as place:
        anna, marie = opened(place, chance)
        with interposed([anna.disk, marie.disk]):
            begin(anna, marie)
            for turn in range(TURNS):
                seen = one_turn(anna, marie, turn, chance)
                check(anna, marie, f"seed {seed}, turn {turn}")
                kept = {text for machine in (anna, marie) for text in restorable(machine.desk)}
                assert seen <= kept, f"seed {seed}, turn {turn}: lost {[text[:30] for text in seen - kept]}"
            for machine in (anna, marie):
                machine.desk.arrivals.close()
                machine.desk.books.close()


def restorable(desk):
    """All versions that the history still has."""
    for content in history(desk).values():
        found = listings.get(desk.books.ledger.read(), content)
        if found is not None:
            pieces = [desk.sources.chunk(chunk.digest) for chunk in found]
            if None not in pieces:
                yield b"".join(piece for piece in pieces if piece is not None).decode()


def test_a_name_that_the_disk_takes_for_another_one_is_no_file_of_its_own():
    with fast_place() as place:
        (place / "anna").mkdir()
        disk = Disk(place / "anna", random.Random(1), Traits(casefold=True))
        with interposed([disk]):
            anna = Desk(place / "anna", "Anna").found()
            with disk.program():
                (anna.files / "recus").mkdir(parents=True)
                (anna.files / "recus/b.txt").write_text("b 1")
            anna.attach(anna.files / "recus")
            marie = Desk(place / "marie", "Marie").join(anna, anna.invite("Marie"))
            exchange(anna, marie)
            (marie.folder / "recus/b.txt").rename(marie.folder / "recus/B.TXT")
            (marie.folder / "recus/B.TXT").write_text("by Marie")
            marie.settle()
            marie.settle()
            with disk.program():
                (anna.files / "recus/b.txt").write_text("by Anna, of whom Marie does not know")
            anna.settle()
            exchange(anna, marie)
            looked = anna.look.look({Spot(RelPath("recus/B.TXT"), ("B.TXT",))})
            assert not anna.work.work(looked.todo).records
            with disk.looking():
                assert tree(anna.files / "recus") == {"b.txt": "by Anna, of whom Marie does not know"}
            anna.books.close()
            marie.books.close()


def test_a_conflict_copy_is_known_however_the_disk_spells_it():
    with fast_place() as place:
        (place / "anna").mkdir()
        disk = Disk(place / "anna", random.Random(1), Traits(nfd=True))
        with interposed([disk]):
            anna = Desk(place / "anna", "Anna").found()
            with disk.program():
                (anna.files / "recus").mkdir(parents=True)
                (anna.files / "recus/été.txt").write_text("été 1")
            anna.attach(anna.files / "recus")
            marie = Desk(place / "marie", "Marie").join(anna, anna.invite("Marie"))
            exchange(anna, marie)
            (marie.folder / "recus/été.txt").write_text("by Marie")
            with disk.program():
                (anna.files / "recus/été.txt").write_text("by Anna")
            marie.settle()
            anna.settle()
            exchange(anna, marie)
            exchange(anna, marie)
            with disk.looking():
                assert sorted(tree(anna.files / "recus").values()) == ["by Anna", "by Marie"]
            live = versions.live_paths(anna.books.ledger.read(), RECUS)
            assert [path.text for path in live] == ["recus/été.txt"]
            anna.books.close()
            marie.books.close()
