"""One mandate, alive: it watches, waits until bursts settle, and lets one round after another bring disk and journal together.

A round is blocking work in a thread: look at what changed, decide, carry out, record. Whatever it recorded is durable, and only then
told to the peers. Memory here is a cache of the ledger: after an error it is dropped and built anew.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from p2psync.daemon.agenda import Agenda, Due, first
from p2psync.daemon.bookwork import in_thread
from p2psync.daemon.conversation import Conversation
from p2psync.daemon.fetcher import PAUSE_S, Fetcher
from p2psync.daemon.intake import Intake
from p2psync.daemon.reckoning import Reckoning
from p2psync.daemon.sightings import Sightings
from p2psync.daemon.troubles import Troubles
from p2psync.daemon.watching import Watching, doubted
from p2psync.edge.watcher import Changes, Watcher
from p2psync.engine import messages as m
from p2psync.engine.hello import Gate
from p2psync.engine.ignore import database_of
from p2psync.engine.notices import Notices
from p2psync.store import listings, powercut
from p2psync.store.apart import Apart
from p2psync.store.arrivals import Arrivals
from p2psync.store.books import Books
from p2psync.store.jobs import Worked
from p2psync.store.journal import Log
from p2psync.store.locating import locate, spell
from p2psync.store.look import Look
from p2psync.store.sources import Sources
from p2psync.store.spots import Looked, Spot
from p2psync.store.work import Work
from p2psync.values.digest import Digest
from p2psync.values.errors import BadPath, UserError
from p2psync.values.keys import GroupKeys
from p2psync.values.names import DeviceId, MandateId, RelPath
from p2psync.values.record import Kind, Record

T = TypeVar("T")

UNHEARD_S = 30.0
"""Everything is surveyed so often while something is not watched."""
AGAIN_S = 0.2
"""So soon is decided again about a path that another one held up."""
READING_S = 1.0
"""A round that reads for longer is worth a word in the status."""
_SLICE = 200
"""Events that are looked at in one go, so that the status need not wait for a thousand of them."""


class Mandate:
    """A mandate that this machine works on. ``on_change`` is told whenever something that the status shows may have changed."""

    def __init__(self, books: Books, watcher: Watcher, on_change: Callable[[MandateId], None], on_members: Callable[[], None]) -> None:
        self.books = books
        self.sources = Sources(books)
        self.arrivals = Arrivals(books)
        self._new_look()
        self.work = Work(books, self.sources, self.arrivals)
        self.fetcher = Fetcher(books.keys.device, self.arrivals, self._complete, self._write_failed, partial(self.well, "writing"))
        self.conversations: list[Conversation] = []
        self.attention = Notices()
        self.reckoning = Reckoning(books, self.attention, self.fetcher)
        self.sightings = Sightings(books)
        self.intake = Intake(self)
        self.watching = Watching(watcher)
        self.troubles: Troubles[str] = Troubles(books.now_ms)
        self.bytes_out = 0
        self._on_change = on_change
        self._on_members = on_members
        self._agenda = Agenda()
        self.gone_through = trio.Event()
        """Everything was looked at and worked on, and nothing went wrong, since this memory was begun."""
        self._busy = trio.Lock()
        self._wake, self._large = trio.Event(), trio.Event()
        self._working = False
        self._new: list[Record] = []
        self._surveyed: set[RelPath] = set()
        self._reading: tuple[float, set[RelPath]] = (0.0, set())
        self._group_keys: dict[int, GroupKeys] = {}
        self.recalled: dict[Digest, float] = {}

    @property
    def id(self) -> MandateId:
        """The id of the mandate."""
        return self.books.mandate

    def group_keys(self, generation: int | None = None) -> GroupKeys:
        """What members derive from the group secret of a generation, the current one by default."""
        group = dict(self.books.secret.group)
        chosen = max(group) if generation is None else generation
        if chosen not in self._group_keys:
            self._group_keys[chosen] = GroupKeys.of(group[chosen], self.id)
        return self._group_keys[chosen]

    def gate(self) -> Gate:
        """The gate at which to knock at other members."""
        generation = self.books.secret.group[-1][0]
        return Gate.for_members(self.id, generation, self.group_keys())

    # ---- its life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until cancelled; started at once, since a disk may take its time."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.fetcher.write_down)
                nursery.start_soon(self._read_apart)
                nursery.start_soon(self.fetcher.seekers.run)
                nursery.start_soon(self.reckoning.keep_counted)
                task_status.started()
                await self.in_thread(partial(powercut.begin, self.books))
                await self.in_thread(self.work.sweep)
                while True:
                    await self._wait_for_work()
                    await self._round()
        finally:
            await self.watching.end()

    def _new_look(self) -> None:
        self.look = Look(self.books)
        self.look.seeing.apart = self._apart = Apart()

    async def _read_apart(self) -> None:
        """Read large files, one after the other, beside the rounds."""
        while True:
            await self._large.wait()
            self._large = trio.Event()
            while (spot := await trio.to_thread.run_sync(self._apart.read_next)) is not None:
                self.look_at({spot})

    async def _wait_for_work(self) -> None:
        while True:
            now = trio.current_time()
            if self.watching.deaf:  # whoever finds that out wakes us
                self._agenda.survey_all(now + UNHEARD_S)
            due = self._agenda.next_due()
            if self.look.unseen or due <= now:
                return
            self._wake = trio.Event()
            with trio.move_on_at(due):
                await self._wake.wait()

    async def _round(self) -> None:
        now = trio.current_time()
        self._working = True
        try:
            async with self._busy:
                self._agenda.survey(await self.watching.keep(self.books.locations()))
                due = self._agenda.take(now, self.books.locations())
                since = self._reading[0] if self.look.unseen else now
                self._reading = (since, due.surveys | self.look.unseen | {RelPath(spot.path.top) for spot in due.spots})
                looked, worked = await self.in_thread(partial(self._work_through, due))
                self._surveyed |= due.surveys
                self._learn(due, looked, worked)
                await self.reckoning.take(worked)
                self.gone_through.set()
                if self._apart.wanted:
                    self._large.set()
        finally:
            self._working = False
        self._spread(worked)

    def _work_through(self, due: Due) -> tuple[Looked, Worked]:
        looked = Looked()
        for name in due.surveys & set(self.books.locations()):
            due.spots.update(self.look.survey(name, looked))
            looked.surveyed.add(name)
        for where, fault in due.unfit.items():
            self.look.look_at_unfit(where, fault, looked)
        if due.surveys >= set(self.books.locations()):  # nothing is left behind for longer than until everything is gone through
            everything = due.paths | self.work.unfinished()
        else:  # nor what could not be done while its disk was away
            everything = due.paths.union(*map(self.work.unsettled, looked.surveyed))
        todo = first(everything)
        put_off = everything - todo
        found = self.look.look(due.spots)
        looked.again |= found.again
        looked.attention |= found.attention
        looked.surveyed -= self.look.unseen
        worked = self.work.work(todo | found.todo)
        worked.todo |= put_off - found.todo
        if due.surveys >= set(self.books.locations()):  # what a failing disk would not let go
            self.work.sweep()
        return looked, worked

    def _learn(self, due: Due, looked: Looked, worked: Worked) -> None:
        now = trio.current_time()
        self._agenda.looked(due.spots, looked.again, now)
        for path, wait in worked.again.items():
            self._agenda.decide_later(path, now + wait)
        self._agenda.decide(worked.todo)
        self._settling_of(worked.look_again)
        attached = {name.text for name in {**self.books.locations(), **self.books.attachments()}}
        self.attention.take({**looked.attention, **worked.attention}, {name.text for name in looked.surveyed}, attached)
        self._take_up_freed({path.text for path in worked.done}, now + AGAIN_S)
        self.fetcher.update(worked.done, worked.wants)
        self._agenda.survey(worked.placed | (worked.absent - looked.surveyed))  # what was just seen to be absent is looked for in a while

    def _take_up_freed(self, done: set[str], due: float) -> None:
        """What another name held up, of which something became known: another path is decided about, another spelling looked at."""
        for shown in self.attention.freed(done):
            path = RelPath.from_disk(*shown.split("/"))
            if path.text in done:
                self._agenda.look_at(Spot(path, tuple(shown.split("/")[1:])), due)
            else:
                self._agenda.decide_later(path, due)

    def _settling_of(self, paths: set[RelPath]) -> None:
        for path in paths:
            self._agenda.touched(spell(self.books, path), trio.current_time(), closed=True)

    def _spread(self, worked: Worked) -> None:
        if worked.records:
            for conversation in self.conversations:
                conversation.push(worked.records, worked.ahead)
        self.changed()

    def changed(self) -> None:
        """Something moved: tell the peers how far we are, and whoever shows the status."""
        for conversation in self.conversations:
            conversation.tell_held()
        self._on_change(self.id)

    # ---- what is heard

    async def heard(self, changes: Changes) -> None:
        """The watcher heard something about us."""
        self._agenda.survey(doubted(changes, self.books.locations()))
        for paths, closed in ((changes.touched, False), (changes.closed, True)):
            for number, where in enumerate(paths):
                self._touched(where, trio.current_time(), closed)
                if number % _SLICE == _SLICE - 1:
                    await trio.lowlevel.checkpoint()
        self._wake.set()

    def _touched(self, where: Path, now: float, closed: bool) -> None:
        try:
            spot = locate(self.books, where)
        except BadPath as e:
            self._agenda.unfit(where, e)
            return
        if spot is not None:
            # Whoever reads a database, and be it ourselves, opens and closes its log as if to write: only a pause says something.
            self._agenda.touched(spot, now, closed=closed and database_of(where.name) is None)

    def rescan(self) -> None:
        """Survey everything now, and try again what could not be done."""
        self._agenda.survey_all()
        self.retry({RelPath(shown) for shown in self.attention.with_code("unwritable", "in-the-way", "space-short")})

    def look_over(self, names: set[RelPath]) -> None:
        """Survey these attachments now."""
        self._agenda.survey(names)
        self._wake.set()

    def retry(self, paths: set[RelPath]) -> None:
        """Decide about these paths (again)."""
        self._agenda.decide(paths)
        self._wake.set()

    def _complete(self, paths: set[RelPath]) -> None:
        """All that these paths wanted is here."""
        self._agenda.complete(paths)
        self._wake.set()

    def look_at(self, spots: set[Spot]) -> None:
        """Look at these spots at once."""
        for spot in spots:
            self._agenda.look_at(spot, trio.current_time())
        self._wake.set()

    # ---- records

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do something that blocks, in a thread that reads what was committed and nothing older."""
        return await in_thread(self.books, work)

    def after(self, records: list[Record], touched: set[RelPath], source: Conversation | None = None) -> None:
        """Records were added to the journal: pass them on and work on what they touch."""
        if not records:
            return
        for conversation in self.conversations:
            if conversation is not source:
                conversation.push(records)
        if any(record.kind != Kind.CHANGE for record in records):
            self._on_members()
            if self.books.may_write:  # what a reader had changed counts, once they are an editor
                touched = touched | {RelPath(shown) for shown in self.attention.with_code("reader", "reader-new")}
        self.retry(touched)
        self.changed()

    def asked_elsewhere(self, asking: Conversation, log: Log, seq: int) -> bool:
        """Whether another peer has been asked for that much of a log."""
        return any(c is not asking and c.is_asked(log, seq) for c in self.conversations)

    def ask_others(self, mute: Conversation) -> None:
        """A peer does not give the records that it told of: perhaps another one does."""
        for conversation in self.conversations:
            if conversation is not mute:
                conversation.ask()

    # ---- peers

    def join(self, conversation: Conversation) -> None:
        """A peer works on this mandate from now on."""
        self.conversations.append(conversation)
        self.fetcher.join(conversation)
        conversation.begin()
        self._on_change(self.id)

    def leave(self, conversation: Conversation) -> None:
        """It has gone."""
        if conversation in self.conversations:
            self.conversations.remove(conversation)
            self.reckoning.left(conversation.device, conversation.held)
            self.books.left(conversation)
            self.fetcher.leave(conversation)
            self.ask_others(conversation)
            self._on_change(self.id)

    # ---- how far we are

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be looked at or worked on."""
        return not (self._working or self.look.unseen or self._apart.busy) and self._agenda.is_clear(trio.current_time())

    def is_reading(self, name: RelPath) -> bool:
        """Whether this attachment is being read and nothing can be said of it yet: the first time, or for more than a moment."""
        since, names = self._reading
        if self._apart.is_reading(name):
            return True
        works = self._working or bool(self.look.unseen)
        return name not in self._surveyed or (works and name in names and trio.current_time() - since > READING_S)

    def reading_since_ms(self) -> int | None:
        """Since when the present round reads (ms since 1970); None between two rounds."""
        since, _ = self._reading
        return self.books.now_ms() - int(1000 * (trio.current_time() - since)) if self._working else None

    def held(self, handle: int) -> m.Held | None:
        """What to tell a peer of our disk, or None while a round may still change it."""
        if self._agenda.is_open or self._working or self.look.unseen:
            return None
        files, size = self.reckoning.lacking
        return m.Held(handle, self.books.journal.view(), files, size)

    @property
    def agrees_here(self) -> bool:
        """Whether this machine's own disk holds what its journal says, and nothing is under way."""
        return self.idle and not self.reckoning.lacking[0]

    def person(self, device: DeviceId) -> str:
        """Who works on a device."""
        intro = self.books.roster.intro(device)
        return intro.person if intro else device.hex()[:8]

    def machine(self, device: DeviceId) -> str:
        """How a device is called to people: “Bruno (salon)”."""
        return self.books.roster.machine(device)

    def packed_listing(self, listing: Digest) -> bytes | None:
        """A chunk list, for a peer."""
        return listings.packed_listing(self.books.ledger.read(), listing)

    # ---- what goes wrong

    def troubled(self, what: str, error: UserError) -> None:
        """Something does not work; it is shown until it is ``well`` again."""
        self.troubles[what] = error
        self._on_change(self.id)

    def well(self, what: str) -> None:
        """It works (again)."""
        if self.troubles.pop(what, None) is not None:
            self._on_change(self.id)

    def _write_failed(self, error: UserError) -> None:
        self.troubled("writing", error)
        now = trio.current_time()
        for path in self.fetcher.paths:
            self._agenda.decide_later(path, now + PAUSE_S)
        self._wake.set()
        self.changed()

    # ---- acts of people

    async def between_rounds(self, work: Callable[[], T]) -> T:
        """Do something that records between two rounds, in a thread."""
        async with self._busy:
            try:
                return await self.in_thread(work)
            finally:  # what was recorded before something went wrong is recorded all the same
                records, self._new = self._new, []
                self.after(records, set())

    def note_new(self, records: list[Record]) -> None:
        """From within ``between_rounds``: these records were added, and are to be passed on."""
        self._new += records

    def forget(self) -> None:
        """Drop what is only in memory: it is built anew from the ledger and the disk."""
        self._new_look()
        self.gone_through = trio.Event()
        self.arrivals.close()
        self._agenda, self._surveyed = Agenda(), set()
        self.reckoning.forget()
        self.attention.clear()
        self.fetcher.forget()
