"""A state that came back from a backup, on a real disk: what the witness knows, and how what was recorded twice at one place is told."""

import shutil
from dataclasses import replace

import pytest

from p2psync.store import copies, keyring, resuming, versions
from p2psync.store.books import MAX_LOGS_EACH, Books
from p2psync.store.faults import DiskFull
from p2psync.store.home import Home
from p2psync.store.witness import Seen, Witness, machine_mark
from p2psync.values.names import RecordId, RelPath
from p2psync.values.record import Kind
from tests.lan.desks import Desk, fast_place, fast_vanishing, tree

A = RelPath("recus/a")


@pytest.fixture
def place(monkeypatch):
    fast_vanishing(monkeypatch)
    with fast_place() as place:
        yield place


@pytest.fixture
def office(place):
    anna = Desk(place / "anna", "Anna").found()
    anna.files.mkdir(parents=True)
    marie = Desk(place / "marie", "Marie").join(anna, anna.invite("Marie"))
    folder = anna.files / "recus"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_text(f"{name} 1")
    anna.attach(folder)
    exchange(anna, marie)
    yield anna, marie, folder
    for desk in (anna, marie):
        desk.arrivals.close()
        desk.books.close()


def exchange(*desks):
    for _ in range(3):
        for one in desks:
            for other in desks:
                if one is not other:
                    one.learn(other)
            one.settle(*[d for d in desks if d is not one])


def keep(desk: Desk) -> None:
    desk.books.close()
    shutil.copytree(desk.home.path, desk.root / "kept")
    desk._use(desk.home.open(desk.books.state))


def put_back(desk: Desk) -> None:
    desk.arrivals.close()
    desk.books.close()
    shutil.rmtree(desk.home.path)
    (desk.root / "kept").rename(desk.home.path)
    desk._use(desk.home.open(desk.books.state))


def raws(desk: Desk) -> list[bytes]:
    ends = {log: (1, end.seq) for log, end in desk.books.journal.ends.items()}
    return desk.books.journal.tails(ends, 10_000_000)[0]


def own_logs(books: Books) -> list[bytes]:
    return [incarnation for device, incarnation in books.journal.ends if device == books.keys.device]


def meet(desk: Desk, other: Desk) -> int | None:
    """What a daemon does with what the other holds; where the own log was left."""
    accepted = desk.books.accept(raws(other), "other")
    own = desk.books.own_log
    forked = min((record for record in accepted.forks if record.log == own), key=lambda record: record.seq, default=None)
    if forked or any(record.log == own for record in accepted.new):
        assert resuming.leave_log(desk.books, forked)
        accepted = desk.books.accept(raws(other), "other")
        assert not accepted.forks and not accepted.early
    desk.todo |= accepted.touched
    return forked.seq if forked else None


def test_what_was_recorded_twice_at_one_place_is_told_in_a_new_log(office):
    anna, marie, folder = office
    keep(anna)
    (folder / "a").write_text("a 2, forgotten")
    anna.invite("Nobody")
    exchange(anna, marie)
    put_back(anna)
    for number in (2, 3):
        (folder / "a").write_text(f"a {number}, after the restore")
        anna.settle()
    (folder / "b").unlink()
    (folder / "new").write_text("new")
    anna.settle()
    ticket = anna.invite("Zoe")
    said = versions.heads(anna.books.ledger.read(), A)
    forked = meet(anna, marie)
    assert forked == anna.books.journal.ends[(anna.home.device, own_logs(anna.books)[0])].seq - 1
    assert len(own_logs(anna.books)) == 2
    now = versions.heads(anna.books.ledger.read(), A)
    assert {head.state for head in said.all} < {head.state for head in now.all} and len(now.all) == 2
    exchange(anna, marie)
    exchange(anna, marie)
    assert anna.books.journal.view() == marie.books.journal.view()
    assert anna.conflicts() == marie.conflicts() == {"recus/a"}
    texts = {"a 2, forgotten", "a 3, after the restore", "c 1", "new"}
    assert set(tree(folder).values()) == set(tree(marie.folder / "recus").values()) == texts
    zoe = Desk(anna.root.parent / "zoe", "Zoe").join(marie, ticket)  # an invitation made meanwhile is good
    exchange(anna, marie, zoe)
    assert {m.person for m in anna.books.roster.members().values()} == {"Anna", "Marie", "Zoe"}
    anna.restart()
    assert anna.books.journal.view() == zoe.books.journal.view()
    zoe.arrivals.close()
    zoe.books.close()


@pytest.mark.parametrize("crashed", [False, True])
def test_leaving_a_log_that_fails_half_way_is_done_another_time(office, monkeypatch, crashed):
    anna, marie, folder = office
    keep(anna)
    (folder / "a").write_text("a 2, forgotten")
    exchange(anna, marie)
    put_back(anna)
    (folder / "a").write_text("a 2, after the restore")
    anna.settle()
    before, secret = anna.books.journal.view(), anna.books.secret
    with monkeypatch.context() as patch:
        patch.setattr(copies, "rename", lambda *_: (_ for _ in ()).throw(DiskFull(path="/")))
        with pytest.raises(DiskFull):
            meet(anna, marie)
    assert anna.books.journal.view() == before and anna.books.secret == secret
    if crashed:
        keyring.save_mandate(anna.books.state / "secret", replace(secret, incarnation=bytes(8)))
    anna.restart()
    assert anna.books.journal.view() == before and anna.books.secret == secret
    meet(anna, marie)
    exchange(anna, marie)
    exchange(anna, marie)
    assert anna.books.journal.view() == marie.books.journal.view() and anna.conflicts() == marie.conflicts() == {"recus/a"}


def test_a_conflict_that_stands_beside_its_path_goes_along(office):
    anna, marie, folder = office
    keep(anna)
    (folder / "b").write_text("b 2, forgotten")
    exchange(anna, marie)
    put_back(anna)
    (marie.folder / "recus/a").write_text("by Marie")
    marie.settle()
    (folder / "a").write_text("by Anna, after the restore")
    anna.settle()
    meet(anna, marie)
    exchange(anna, marie)
    assert anna.conflicts() == {"recus/a"}
    for copy in copies.everything(anna.books.ledger.read()):
        assert versions.entry(anna.books.ledger.read(), copy.ref) is not None
    anna.resolve("recus/a", "mine")
    exchange(anna, marie)
    exchange(anna, marie)
    assert not anna.conflicts() and tree(folder) == tree(marie.folder / "recus")
    assert tree(folder) == {"a": "by Anna, after the restore", "b": "b 2, forgotten", "c": "c 1"}


def test_what_somebody_has_built_on_is_not_taken_back(office):
    """Two branches that both got about: each machine keeps the one it has, and nothing of it is undone."""
    anna, marie, folder = office
    keep(anna)
    (folder / "a").write_text("a 2, forgotten")
    exchange(anna, marie)
    forgotten = raws(marie)
    put_back(anna)
    (folder / "a").write_text("a 2, after the restore")
    anna.settle()
    zoe = Desk(anna.root.parent / "zoe", "Zoe").join(anna, anna.invite("Zoe"))
    exchange(anna, zoe)
    (zoe.folder / "recus/b").write_text("b 2, by Zoe")
    exchange(anna, zoe)
    before = tree(folder)
    accepted = anna.books.accept(forgotten)
    forked = min(accepted.forks, key=lambda record: record.seq)
    there = anna.books.journal.at(forked.log, forked.seq)
    assert resuming.leave_log(anna.books, forked) and anna.books.journal.at(forked.log, forked.seq) == there
    assert not resuming.leave_log(anna.books, forked) and len(own_logs(anna.books)) == 2  # however often it is told
    exchange(anna, zoe)
    assert tree(folder) == tree(zoe.folder / "recus") == before
    zoe.arrivals.close()
    zoe.books.close()


# ---- the witness


@pytest.fixture
def watched(place):
    """Opens Anna's home with a witness, on a machine with this mark."""
    anna = Desk(place / "anna", "Anna")

    def open_(mark: bytes = b"here", folder: str = "witness") -> Books:
        anna.home = Home(anna.home.path, lambda: anna.clock, witness=Witness(place / folder, mark))
        if hasattr(anna, "books"):
            anna.books.close()
            anna.books = anna.home.open(anna.books.state)
        else:
            anna.found()
            anna.invite("Marie")
        return anna.books

    yield anna, open_
    anna.arrivals.close()
    anna.books.close()


def test_a_state_that_is_in_order_stays_in_its_log(watched):
    anna, open_ = watched
    for _ in range(3):
        books = open_()
        anna.invite("Marie")
        assert len(own_logs(books)) == 1 and not resuming.questions(books)
    shutil.rmtree(anna.root.parent / "witness")
    assert len(own_logs(open_())) == 1
    (anna.root.parent / "witness").write_text("no folder")
    anna.invite("Marie")
    assert len(own_logs(open_())) == 1


@pytest.mark.parametrize("damage", [b"", b"\xff" * 90, b"\x94\x01"])
def test_a_witness_that_cannot_be_read_is_none(watched, damage):
    anna, open_ = watched
    open_()
    (file,) = (anna.root.parent / "witness").iterdir()
    file.write_bytes(damage)
    assert len(own_logs(open_())) == 1


def test_an_older_state_leaves_its_log_before_anything_is_recorded(watched):
    anna, open_ = watched
    open_()
    keep(anna)
    anna.invite("Marie")
    put_back(anna)
    books = anna.books
    assert len(own_logs(books)) == 2 and books.journal.ends[books.own_log].seq == 1
    (question,) = resuming.questions(books)
    assert question.code == "this-machine-twice"
    assert len(own_logs(open_())) == 2  # once
    resuming.answer(books := anna.books)
    assert not resuming.questions(books) and not resuming.questions(open_())


def test_a_state_on_another_machine_leaves_its_log(watched):
    _, open_ = watched
    open_()
    assert len(own_logs(open_(b"there", "another"))) == 2
    assert len(own_logs(open_(b"there", "another"))) == 2
    assert len(own_logs(open_(b"", "another"))) == 2  # a machine without a mark says nothing


def test_nobody_is_driven_into_ever_new_logs(watched):
    anna, open_ = watched
    open_()
    for number in range(MAX_LOGS_EACH + 3):
        open_(f"machine {number}".encode(), f"witness {number}")
    assert len(own_logs(anna.books)) == MAX_LOGS_EACH
    anna.invite("Marie")
    anna.restart()


def test_marks():
    assert machine_mark() == machine_mark() and len(machine_mark()) in (0, 32)


def test_a_witness_remembers(place):
    witness = Witness(place / "deep" / "witness")
    anna = Desk(place / "anna", "Anna").found()
    seen = Seen(bytes(8), 7, RecordId(bytes(range(32))))
    assert witness.saw(anna.books.mandate, anna.home.device) is None
    witness.note(anna.books.mandate, anna.home.device, seen)
    assert Witness(place / "deep" / "witness").saw(anna.books.mandate, anna.home.device) == seen
    assert anna.books.journal.of_kinds(Kind.RESUME) == []
    anna.arrivals.close()
    anna.books.close()
