"""Machines without a network: real books on a real disk, whose records and chunks a test carries from one to the other by hand."""

import itertools
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2psync.engine import pauses
from p2psync.engine.invitation import Admission, consider_join, draft, ticket_for
from p2psync.store import attaching, resolving, vanishing
from p2psync.store.arrivals import Arrivals
from p2psync.store.books import Books
from p2psync.store.home import Home
from p2psync.store.jobs import Worked
from p2psync.store.look import Look
from p2psync.store.savefile import save
from p2psync.store.sources import Sources
from p2psync.store.spots import Looked, Spot
from p2psync.store.work import Work
from p2psync.values.acts import Role
from p2psync.values.content import Listing
from p2psync.values.entry import Op
from p2psync.values.keys import Secret
from p2psync.values.names import InviteId, RelPath
from p2psync.values.packing import pack
from p2psync.values.record import Kind
from p2psync.values.ticket import Ticket

NOW = 1_800_000_000_000
"""Milliseconds since 1970 at which every machine's clock stands until a test turns it."""


class Desk:
    """One machine with one mandate. With a ``chance`` its keys and names come from there, so that the same seed gives the same ids."""

    def __init__(self, root: Path, person: str, chance: random.Random | None = None) -> None:
        self.root = root
        self.person = person
        self.clock = NOW
        if chance is not None:
            (root / "state").mkdir(0o700, parents=True)
            save(root / "state" / "device.key", pack([1, *(chance.randbytes(32) for _ in range(3))]))
        self.home = Home(root / "state", lambda: self.clock, chance.randbytes if chance else os.urandom)
        self.folder = root / "mandate"
        self.files = root / "files"
        self._invitations = itertools.count(1)
        self.books: Books

    def found(self, name: str = "Dupont SA") -> "Desk":
        self._use(self.home.found(name, self.person, f"{self.person}-pc", "linux", self.folder))
        return self

    def _use(self, books: Books) -> None:
        self.books = books
        self.sources = Sources(books)
        self.arrivals = Arrivals(books)
        self.look = Look(books)
        self.work = Work(books, self.sources, self.arrivals)
        self.todo: set[RelPath] = set()
        self.later: set[RelPath] = set()
        self.started = False

    def restart(self) -> None:
        """As after a kill: everything in memory is gone."""
        self.arrivals.close()
        state = self.books.state
        self.books.close()
        self._use(self.home.open(state))

    def invite(self, name: str, role: Role = Role.EDITOR) -> Ticket:
        number = next(self._invitations)
        drafted = draft(
            self.books.roster,
            self.home.device,
            for_name=name,
            now_ms=self.clock,
            lasts_ms=86_400_000,
            invite=InviteId(number.to_bytes(16, "big")),
            seed=Secret(number.to_bytes(32, "big")),
            role=role,
        )
        record = self.books.act(Kind.INVITE, drafted.invite.pack())
        secret = self.books.secret.group[-1][1]
        text = ticket_for(self.books.roster, record, self.home.keys, drafted, secret, (), name=self.books.name, now_ms=self.clock)
        return Ticket.parse(text)

    def join(self, member: "Desk", ticket: Ticket) -> "Desk":
        joining = self.home.begin_joining(ticket, b"", self.person, f"{self.person}-pc", "linux", self.folder)
        answer = consider_join(
            member.books.roster,
            joining.device,
            joining.join,
            me=member.home.device,
            peer_key=self.home.keys.transport_public,
            now_ms=member.clock,
            fresh=True,
        )
        assert isinstance(answer, Admission) and answer.witness is not None
        member.books.accept([joining.device.raw, joining.join.raw])
        member.books.act(Kind.WITNESS, answer.witness.pack())
        self._use(self.home.joined(joining, member.books.secret.group))
        self.learn(member)
        return self

    def attach(self, *paths: Path) -> None:
        attaching.attach(self.books, [], self.home.path, list(paths), "")
        self.settle()

    def learn(self, other: "Desk") -> None:
        """Take the records that the other has."""
        ends = {log: (1, end.seq) for log, end in other.books.journal.ends.items()}
        after = 0
        while True:
            raws, after = other.books.journal.tails(ends, 200_000, after)
            accepted = self.books.accept(raws)
            assert not accepted.alarms and not accepted.early
            self.todo |= accepted.touched
            if not after:
                return

    def settle(self, *others: "Desk", patience: float = 2.0) -> Worked:
        """Survey, decide and carry out until nothing is left to do here; take what is missing from the others."""
        todo = self.todo | self.later
        if not self.started:
            self.work.sweep()
            todo |= self.work.unfinished()
            self.started = True
        self.todo, self.later = set(), set()
        deadline = time.monotonic() + patience
        everything = Worked()
        for _ in range(60):
            looked = Looked()
            spots: set[Spot] = set()
            for name in self.books.locations():
                spots |= self.look.survey(name, looked)
            found = self.look.look(spots)
            worked = self.work.work(todo | found.todo)
            everything.attention |= looked.attention | found.attention | worked.attention
            everything.records += worked.records
            everything.wants = worked.wants
            fetched = self._fetch(worked, others)
            todo = worked.todo | fetched
            self.later = self.later - worked.done | set(worked.again) | (set(worked.wants) - fetched)
            soon = {path: wait for path, wait in worked.again.items() if wait < 0.05}
            again = [*looked.again.values(), *found.again.values(), *soon.values()]
            todo |= set(soon)
            if worked.placed or worked.look_again or self.look.unseen or (todo and not soon):
                continue
            if not again or min(again) > patience or time.monotonic() > deadline:
                return everything
            time.sleep(min(again))
        raise AssertionError(f"{self.person}'s machine does not come to rest: {worked.todo} {worked.look_again} {fetched}")

    def _fetch(self, worked: Worked, others: "tuple[Desk, ...]") -> set[RelPath]:
        got = set()
        for path, want in worked.wants.items():
            for other in others:
                if want.listing is None:
                    query = "SELECT packed FROM listings WHERE digest = ?"
                    packed = other.books.ledger.read().execute(query, (want.content.listing,)).fetchone()
                    if packed:
                        self.arrivals.listing(want.content, Listing.received(packed[0], want.content))
                        got.add(path)
                    continue
                pieces = [(chunk.digest, other.sources.chunk(chunk.digest)) for chunk in want.chunks]
                self.fetched = getattr(self, "fetched", 0) + sum(len(data) for _, data in pieces if data)
                self.arrivals.chunks([(digest, data) for digest, data in pieces if data is not None])
                if all(data is not None for _, data in pieces):
                    got.add(path)
                    break
        return got

    def conflicts(self) -> set[str]:
        from p2psync.store import versions

        return {path.text for path in versions.conflicted(self.books.ledger.read())}

    def attached(self) -> dict[str, Op]:
        return {name.text: op for name, op in self.books.attachments().items()}

    def resolve(self, name: str, keep: str) -> None:
        _, touched = resolving.resolve(self.books, name, keep, "")
        self.todo |= touched


def exchange(*desks: Desk, rounds: int = 2) -> list[Worked]:
    """Everybody hears from everybody and works, so many times; what each time came of it."""
    found = []
    for _ in range(rounds):
        for one in desks:
            for other in desks:
                if one is not other:
                    one.learn(other)
            found.append(one.settle(*[d for d in desks if d is not one], patience=0.0))
    return found


@contextmanager
def fast_place() -> Iterator[Path]:
    """A directory that is gone afterwards, in memory where there is such a disk: nothing waits for it, and all its rules are the same."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as place:
        yield Path(place)


@contextmanager
def two_desks(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Desk, Desk]]:
    """Anna's desk and Marie's, who has joined her, with nothing attached yet; what is gone is believed at once."""
    fast_vanishing(monkeypatch)
    with fast_place() as place:
        anna = Desk(place / "anna", "Anna").found()
        marie = Desk(place / "marie", "Marie").join(anna, anna.invite("Marie"))
        yield anna, marie
        for desk in (anna, marie):
            desk.arrivals.close()
            desk.books.close()


def fast_vanishing(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Believe at once that something is gone, or was emptied."""
    monkeypatch.setattr(vanishing, "GONE_FOR", 0.0)
    monkeypatch.setattr(pauses, "HALF_THERE", 0.0)


def tree(folder: Path) -> dict[str, str]:
    """The files below a folder by their names, our own work left out."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and ".p2psync" not in path.name]
    return {str(path.relative_to(folder)): path.read_text() for path in files}
