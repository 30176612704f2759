"""One mandate, alive: it watches, waits until bursts settle, and lets one round after another bring disk and journal together.

A round is blocking work in a thread: look at what changed, decide, carry out, record. Whatever it recorded is durable, and only then
told to the peers. Memory here is a cache of the ledger: after an error it is dropped and built anew.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import trio

from p2psync.daemon.conversation import Conversation
from p2psync.daemon.fetcher import Fetcher
from p2psync.edge.watcher import Changes, Watch, Watcher
from p2psync.engine import messages as m
from p2psync.engine.attention import Attention
from p2psync.engine.hello import Gate
from p2psync.engine.settle import Settling
from p2psync.store import addresses, listings
from p2psync.store.arrivals import Arrivals
from p2psync.store.books import Accepted, Books
from p2psync.store.jobs import Worked
from p2psync.store.journal import Log
from p2psync.store.look import Look, Looked, Spot
from p2psync.store.sources import Sources
from p2psync.store.work import Work
from p2psync.values.digest import Digest
from p2psync.values.errors import BadPath, UserError
from p2psync.values.keys import GroupKeys
from p2psync.values.names import DeviceId, MandateId, RelPath
from p2psync.values.record import Kind, Record

T = TypeVar("T")

SURVEY_S = 600.0
"""Everything is surveyed so often, whatever the watcher says."""
READING_S = 1.0
"""A round that reads for longer is worth a word in the status."""
_AT_ONCE = 2000
"""Paths that one round takes on, so that what a person just saved need not wait for the end of a large import."""
_NOT_HELD = {"waiting", "missing", "error", "halted", "receiving"}


class Mandate:
    """A mandate that this machine works on. ``on_change`` is told whenever something that the status shows may have changed."""

    def __init__(self, books: Books, watcher: Watcher, on_change: Callable[[MandateId], None], on_members: Callable[[], None]) -> None:
        self.books = books
        self.sources = Sources(books)
        self.arrivals = Arrivals(books)
        self.look = Look(books)
        self.work = Work(books, self.sources, self.arrivals)
        self.fetcher = Fetcher(self.arrivals, self._ready, self._write_failed)
        self.conversations: list[Conversation] = []
        self.attention: dict[str, Attention] = {}
        self.problem: UserError | None = None
        self.bytes_out = 0
        self._watcher = watcher
        self._on_change = on_change
        self._on_members = on_members
        self._settling: Settling[Spot] = Settling()
        self._later: Settling[RelPath] = Settling()
        self._todo: set[RelPath] = set()
        self._surveys: set[RelPath] = set()
        self._watches: dict[RelPath, tuple[Path, Watch]] = {}
        self._busy = trio.Lock()
        self._wake = trio.Event()
        self._working = False
        self._new: list[Record] = []
        self._surveyed: set[RelPath] = set()
        self._reading: tuple[float, set[RelPath]] = (0.0, set())
        self._next_survey = -math.inf
        self._group_keys: dict[int, GroupKeys] = {}

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
        """Work until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.fetcher.write_down)
            await trio.to_thread.run_sync(self.work.sweep)
            self._todo |= await trio.to_thread.run_sync(self.work.unfinished)
            task_status.started()
            try:
                while True:
                    await self._wait_for_work()
                    await self._round()
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 3):
                    for _, watch in self._watches.values():
                        await self._watcher.unwatch(watch)

    async def _wait_for_work(self) -> None:
        while True:
            now = trio.current_time()
            due = min(self._settling.next_due() or math.inf, self._later.next_due() or math.inf, self._next_survey)
            if self._todo or self._surveys or due <= now:
                return
            self._wake = trio.Event()
            with trio.move_on_at(due):
                await self._wake.wait()

    async def _round(self) -> None:
        now = trio.current_time()
        self._working = True
        try:
            async with self._busy:
                await self._keep_watched()
                if self._next_survey <= now:
                    self._next_survey = now + SURVEY_S
                    self._surveys |= set(self.books.locations())
                surveys, self._surveys = self._surveys, set()
                todo = self._todo | self._later.take_due(now)
                batch = set(list(todo)[:_AT_ONCE]) if len(todo) > _AT_ONCE else todo
                self._todo = todo - batch
                spots = self._settling.take_due(now)
                self._reading = (now, surveys | {RelPath(spot.path.top) for spot in spots})
                looked, worked = await trio.to_thread.run_sync(self._work_through, surveys, spots, batch)
                self._surveyed |= surveys
                self._learn(looked, worked)
        finally:
            self._working = False
        self._spread(worked)

    def _work_through(self, surveys: set[RelPath], spots: set[Spot], todo: set[RelPath]) -> tuple[Looked, Worked]:
        looked = Looked()
        for name in surveys & set(self.books.locations()):
            spots |= self.look.survey(name, looked)
        found = self.look.look(spots)
        looked.again |= found.again
        looked.attention |= found.attention
        return looked, self.work.work(todo | found.todo)

    def _learn(self, looked: Looked, worked: Worked) -> None:
        now = trio.current_time()
        for spot, wait in looked.again.items():
            self._settling.later(spot, now + wait)
        for path, wait in worked.again.items():
            self._later.later(path, now + wait)
        self._todo |= worked.todo
        self._settling_of(worked.look_again)
        for shown, attention in {**looked.attention, **worked.attention}.items():
            known = self.attention.get(shown)
            if attention is None:
                self.attention.pop(shown, None)
            elif known is None or known.code != attention.code or known.facts != attention.facts:
                self.attention[shown] = attention
        self.fetcher.update(worked.done, worked.wants)
        if worked.placed:
            self._surveys |= worked.placed

    def _settling_of(self, paths: set[RelPath]) -> None:
        for path in paths:
            self._settling.touched(self.look.spell(path), trio.current_time(), closed=True)

    def _spread(self, worked: Worked) -> None:
        if worked.records:
            for conversation in self.conversations:
                conversation.push(worked.records)
        self.changed()

    def changed(self) -> None:
        """Something moved: tell the peers how far we are, and whoever shows the status."""
        for conversation in self.conversations:
            conversation.tell_held()
        self._on_change(self.id)

    # ---- watching

    async def _keep_watched(self) -> None:
        """Have a watch on each place that an attachment has here."""
        wanted = self.books.locations()
        for name in [name for name in self._watches if name not in wanted or self._watches[name][0] != wanted[name].path]:
            await self._watcher.unwatch(self._watches.pop(name)[1])
        for name, location in wanted.items():
            if name not in self._watches:
                only = {location.path.name} if location.single else None
                watch = await self._watcher.watch(location.root, recursive=not location.single, only=only)
                self._watches[name] = (location.path, watch)
                self._surveys.add(name)

    def heard(self, changes: Changes) -> None:
        """The watcher heard something, perhaps about us."""
        now = trio.current_time()
        for paths, closed in ((changes.touched, False), (changes.closed, True)):
            for where in paths:
                self._touched(where, now, closed)
        for name, location in self.books.locations().items():
            if location.root in changes.doubt:
                self._surveys.add(name)
        self._wake.set()

    def _touched(self, where: Path, now: float, closed: bool) -> None:
        try:
            spot = self.look.locate(where)
        except BadPath as e:
            shown = next(
                (f"{n}/{where.relative_to(x.path)}" for n, x in self.books.locations().items() if x.path in where.parents), where.name
            )
            self.attention[shown] = Attention("bad-name", self.books.now_ms(), {"why": e.facts.get("why", "")})
            return
        if spot is not None:
            self._settling.touched(spot, now, closed=closed)

    def rescan(self) -> None:
        """Survey everything now."""
        self._next_survey = -math.inf
        self._wake.set()

    def look_over(self, names: set[RelPath]) -> None:
        """Survey these attachments now."""
        self._surveys |= names
        self._wake.set()

    def retry(self, paths: set[RelPath]) -> None:
        """Decide about these paths (again)."""
        self._todo |= paths
        self._wake.set()

    def look_at(self, spots: set[Spot]) -> None:
        """Look at these spots at once."""
        for spot in spots:
            self._settling.later(spot, trio.current_time())
        self._wake.set()

    # ---- records

    async def accept(self, raws: list[bytes], source: Conversation | None) -> Accepted:
        """Take records that arrived, pass the new ones on, and have their paths worked on."""
        accepted = await trio.to_thread.run_sync(self.books.accept, raws)
        self.after(accepted.new, accepted.touched, source)
        return accepted

    def after(self, records: list[Record], touched: set[RelPath], source: Conversation | None = None) -> None:
        """Records were added to the journal: pass them on and work on what they touch."""
        if not records:
            return
        for conversation in self.conversations:
            if conversation is not source:
                conversation.push(records)
        if any(record.kind != Kind.CHANGE for record in records):
            self._on_members()
        self.retry(touched)
        self.changed()

    def asked_elsewhere(self, asking: Conversation, log: Log, seq: int) -> bool:
        """Whether another peer has been asked for that much of a log."""
        return any(c is not asking and c.is_asked(log, seq) for c in self.conversations)

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
            self.fetcher.leave(conversation)
            for other in self.conversations:
                other.ask()
            self._on_change(self.id)

    def hear_of(self, members: tuple[tuple[DeviceId, tuple[tuple[bytes, int], ...]], ...]) -> None:
        """A peer says where other members were last met."""
        known = self.books.roster.members()
        found = [(device, spots) for device, spots in members if device in known and device != self.books.keys.device]
        with self.books.ledger.write() as db:
            for device, spots in found:
                for address, port in spots:
                    addresses.hint(db, device, address, port)
        self._on_members()

    def addresses_of_others(self, device: DeviceId) -> tuple[tuple[DeviceId, tuple[tuple[bytes, int], ...]], ...]:
        """Where the members other than ``device`` and us were last met."""
        return addresses.packed(self.books.ledger.read(), without={device, self.books.keys.device})

    # ---- how far we are

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be looked at or worked on."""
        return not (self._working or self._todo or self._surveys or len(self._settling) or self._next_survey <= trio.current_time())

    def is_reading(self, name: RelPath) -> bool:
        """Whether this attachment is being read and nothing can be said of it yet: the first time, or for more than a moment."""
        since, names = self._reading
        return name not in self._surveyed or (self._working and name in names and trio.current_time() - since > READING_S)

    @property
    def lacking(self) -> tuple[int, int]:
        """Files and bytes by which our disk is behind the journal."""
        files, size = self.fetcher.missing
        waiting = sum(1 for shown, a in self.attention.items() if a.state in _NOT_HELD and _path_or_none(shown) not in self.fetcher.wants)
        return files + waiting, size

    def held(self, handle: int) -> m.Held | None:
        """What to tell a peer of our disk, or None while a round may still change it."""
        if self._todo or self._working:
            return None
        files, size = self.lacking
        return m.Held(handle, self.books.journal.view(), files, size)

    def in_sync(self, conversation: Conversation) -> bool:
        """Whether this peer's disk holds what our journal says."""
        held = conversation.held
        return held is not None and held.view == self.books.journal.view() and not held.files

    @property
    def agrees_here(self) -> bool:
        """Whether this machine's own disk holds what its journal says, and nothing is under way."""
        return self.idle and not self.lacking[0]

    def newest_entry(self, name: RelPath) -> int:
        """After how many entries of the journal the attachment was last changed."""
        row = self.books.ledger.read().execute(
            "SELECT coalesce(max(n), 0) FROM entries WHERE path = ? OR (path > ? AND path < ?)",
            (name.text, name.text + "/", name.text + "0"),
        )
        return int(row.fetchone()[0])

    def position_of(self, conversation: Conversation) -> int:
        """After how many of our entries the peer's disk is as far as the peer has said."""
        held = conversation.held
        return self.books.positions.get(held.view, 0) if held is not None and not held.files else 0

    def person(self, device: DeviceId) -> str:
        """Who works on a device."""
        intro = self.books.roster.intro(device)
        return intro.person if intro else device.hex()[:8]

    def packed_listing(self, listing: Digest) -> bytes | None:
        """A chunk list, for a peer."""
        return listings.packed_listing(self.books.ledger.read(), listing)

    # ---- what the fetcher says

    def _ready(self, paths: set[RelPath]) -> None:
        self.retry(paths)

    def _write_failed(self, error: UserError) -> None:
        self.problem = error
        now = trio.current_time()
        for path in self.fetcher.wants:
            self._later.later(path, now + 20)
        self.changed()

    # ---- acts of people

    async def between_rounds(self, work: Callable[[], T]) -> T:
        """Do something that records between two rounds, in a thread."""
        async with self._busy:
            result = await trio.to_thread.run_sync(work)
        records, self._new = self._new, []
        self.after(records, set())
        return result

    def note_new(self, records: list[Record]) -> None:
        """From within ``between_rounds``: these records were added, and are to be passed on."""
        self._new += records

    def forget(self) -> None:
        """Drop what is only in memory: it is built anew from the ledger and the disk."""
        self.look = Look(self.books)
        self.arrivals.close()
        self._settling, self._later = Settling(), Settling()
        self._todo, self._surveys, self._surveyed = set(), set(), set()
        self._next_survey = -math.inf
        self.attention.clear()


def _path_or_none(text: str) -> RelPath | None:
    """``text`` as a path of a mandate, or None."""
    try:
        return RelPath(text)
    except BadPath:
        return None
