"""What two machines say to each other about one mandate that they share, from the side of one of them.

Records flow by comparing journals: each side tells its heads, asks for what it lacks, and pushes what is new. What arrives too early
waits until what it stands on is there. Content flows on request only.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from p2psync.engine import messages as m
from p2psync.store.ahead import Ahead
from p2psync.store.books import Accepted
from p2psync.store.journal import Log
from p2psync.values.content import Content
from p2psync.values.digest import Digest
from p2psync.values.errors import P2psyncError, PeerError, UserError
from p2psync.values.names import DeviceId
from p2psync.values.record import Record

if TYPE_CHECKING:
    from p2psync.daemon.mandate import Mandate
    from p2psync.daemon.peer import Peer

T = TypeVar("T")

_RECORDS = 192 * 1024
"""Bytes of records in one message."""
ANSWER_S = 60.0
"""Seconds without progress after which records are asked of somebody else."""
AGAIN_S = 5.0
"""Seconds between two answers to heads; and at most between two times that a peer is asked for all that it lacked."""


class BadRecord(PeerError):
    """The other machine sent a record that no honest machine passes on: {why}."""


class Conversation:
    """One peer, one mandate. ``handle`` is our number for the mandate on this link."""

    def __init__(self, peer: "Peer", mandate: "Mandate", handle: int) -> None:
        self.peer = peer
        self.mandate = mandate
        self.handle = handle
        self.device: DeviceId = peer.device
        self.held: m.Held | None = None
        self.theirs: dict[Log, int] = {}
        self._asked: dict[Log, int] = {}
        self._asked_at = 0.0
        self._mute = False
        self._told: m.Held | None = None
        self._owes_heads = False
        self._heads_at = -AGAIN_S
        self._more_at = 0.0
        self._has_more = False

    # ---- what we say

    def begin(self) -> None:
        """Tell what we have: the first words about this mandate."""
        self._say_heads()
        self.tell_held()
        members = (*self.peer.whereabouts(), *self.mandate.sightings.of_others(self.device))[: m.MAX_DEVICES]
        if members:
            self.peer.say(m.Whereabouts(self.handle, members))

    def push(self, records: Iterable[Record], ahead: Ahead | None = None) -> None:
        """Send new records at once, those that the peer is not known to have, and ``ahead`` of them what it will want; when it is slow to
        take them, tell it later to ask.
        """
        if self.peer.crowded:
            self._owes_heads = True
            return
        if ahead is not None:
            self._push_ahead(ahead)
        raws = []
        for record in records:
            if self.theirs.get(record.log, 0) < record.seq:
                raws.append(record.raw)
                self.theirs[record.log] = record.seq
        for batch in _batches(raws):
            self.peer.say(m.Records(self.handle, tuple(batch)))

    def _push_ahead(self, ahead: Ahead) -> None:
        for digest, packed in ahead.lists.items():
            self.peer.say(m.Listing(self.handle, digest, 0, 1, packed))
        for digest, data in ahead.chunks.items():
            self.peer.say(m.Chunk(self.handle, digest, data))
            self.mandate.bytes_out += len(data)
        for listing, change in ahead.changes.items() if self.peer.features & m.LISTING_CHANGES else ():
            self.peer.say(m.ListingChange(self.handle, listing, change.known, change.before, change.after, change.between))

    def catch_up(self) -> None:
        """What waited to be sent was taken: tell what there is, if news was held back."""
        if self._owes_heads:
            self._owes_heads = False
            self._say_heads()

    def tell_held(self) -> None:
        """Tell how far our disk is, when that changed."""
        told = self.mandate.held(self.handle)
        if told is not None and told != self._told:
            self._told = told
            self.peer.say(told)

    def ask(self) -> None:
        """Ask the peer for the records that it has and we have not asked anybody for."""
        ours = self.mandate.books.journal.ends
        ranges = []
        for log, seq in self.theirs.items():
            have = max(ours[log].seq if log in ours else 0, self._asked.get(log, 0))
            if have < seq and not self.mandate.asked_elsewhere(self, log, seq):
                ranges.append(m.LogRange(*log, have + 1, seq))
                self._asked[log] = seq
        if ranges:
            self._asked_at = trio.current_time()
            self.peer.say(m.Want(self.handle, tuple(ranges[: m.MAX_LOGS])))

    def ask_again(self) -> None:
        """Our own log was left, perhaps earlier than where it ended: ask for what it lacks now."""
        for log in [log for log in self._asked if log[0] == self.mandate.books.keys.device]:
            del self._asked[log]
        self.ask()

    def _ask_own(self, heads: m.Heads) -> None:
        """If the peer holds more of the log that we write than we do, or something else, ask for all of it: where do we differ?"""
        books = self.mandate.books
        for head in heads.logs:
            log = (head.device, head.incarnation)
            if log == books.own_log and books.journal.at(log, head.seq) != head.id:
                self._asked[log] = head.seq
                self._asked_at = trio.current_time()
                self.peer.say(m.Want(self.handle, (m.LogRange(*log, 1, head.seq),)))

    def is_asked(self, log: Log, seq: int) -> bool:
        """Whether this peer has been asked for that log up to ``seq``, and is expected to answer."""
        return not self._mute and self._asked.get(log, 0) >= seq

    def ask_chunks(self, ids: list[Digest]) -> None:
        """Ask for chunks."""
        self.peer.say(m.WantChunks(self.handle, tuple(ids)))

    def ask_listing(self, content: Content, page: int) -> None:
        """Ask for one page of a chunk list."""
        self.peer.say(m.WantListing(self.handle, content.listing, page))

    def tell_have(self, ids: list[Digest]) -> None:
        """Tell that we have these chunks; a peer that is slow to take what it is sent is not told."""
        for start in range(0, 0 if self.peer.crowded else len(ids), m.MAX_IDS):
            self.peer.say(m.Have(self.handle, tuple(ids[start : start + m.MAX_IDS])))

    @property
    def holds_all(self) -> bool:
        """Whether the peer said that its disk lacks nothing of what our journal says."""
        return self.mandate.reckoning.in_sync(self)

    def look_after(self) -> None:
        """Every few seconds: let others be asked for the records that this peer told of and does not give, and begin anew with it: perhaps
        it could not read them just then.
        """
        if self._asked and trio.current_time() - self._asked_at >= ANSWER_S:
            self._mute = True
            ours = self.mandate.books.journal.ends
            self.theirs = {log: seq for log, seq in self.theirs.items() if log in ours and ours[log].seq >= seq}
            self._asked.clear()
            self.mandate.ask_others(self)
            self._say_heads()

    def _say_heads(self) -> None:
        self._heads_at = trio.current_time()
        ends = sorted(self.mandate.books.journal.ends.items())[: m.MAX_LOGS]
        self.peer.say(m.Heads(self.handle, tuple(m.LogHead(*log, end.seq, end.id) for log, end in ends)))

    # ---- what we hear

    async def heard(self, message: object) -> None:
        """Take one message about this mandate."""
        match message:
            case m.Heads():
                self._compare(message)
            case m.Want():
                self.peer.serve(lambda: self._serve_records(message))
            case m.Records():
                await self._take(message.records)
            case m.WantChunks():
                self.peer.serve_content(lambda: self._serve_chunks(message))
            case m.WantListing():
                self.peer.serve_content(lambda: self._serve_listing(message))
            case m.Held():
                self._take_held(message)
            case m.Whereabouts():
                self.peer.heard_of(self.mandate, message)
            case _:
                await self._take_content(message)

    async def _take_content(self, message: object) -> None:
        """Content that the peer gives, or which of it the peer has and has not."""
        fetcher = self.mandate.fetcher
        match message:
            case m.Chunk():
                await fetcher.chunk(self, message.id, message.data)
            case m.NoChunk():
                fetcher.no_chunk(self, message.id)
            case m.Listing():
                await fetcher.page(self, message)
            case m.NoListing():
                fetcher.no_listing(self, message.listing)
            case m.ListingChange():
                await fetcher.change(message)
            case m.Have():
                fetcher.says(self, message.ids)

    def _compare(self, heads: m.Heads) -> None:
        """The peer's heads: ask for what we lack; one that compares again and lacks something is told ours, not too often."""
        first = not self.theirs
        self.theirs = {(head.device, head.incarnation): head.seq for head in heads.logs}
        self._asked.clear()
        self._ask_own(heads)
        self.mandate.intake.notice_fork(self.device, heads)
        self.ask()
        ours = self.mandate.books.journal.ends
        lacks = any(self.theirs.get(log, 0) < end.seq for log, end in ours.items())
        if lacks and not first and trio.current_time() - self._heads_at >= AGAIN_S:
            self._say_heads()

    def _take_held(self, held: m.Held) -> None:
        before, self.held = self.held, held
        more = before is None or held.view != before.view or held.files < before.files
        if not held.files:
            self.mandate.fetcher.seekers.remove(self)
        if more and not self._has_more:
            self._has_more = True
            self.peer.later(self._more_at - trio.current_time(), self._ask_again)
        self.mandate.changed()

    def _ask_again(self) -> None:
        """The more it said to lack, the longer until it is asked for all of that once more."""
        lacked = self.mandate.fetcher.has_more(self)
        self._has_more, self._more_at = False, trio.current_time() + min(lacked / 1000, AGAIN_S)

    async def _take(self, raws: tuple[bytes, ...]) -> None:
        self.mandate.fetcher.prefer(self)
        accepted = await self.mandate.intake.accept(list(raws), self)
        for record in [*accepted.new, *accepted.early]:
            if self.theirs.get(record.log, 0) < record.seq and (record.log in self.theirs or len(self.theirs) < m.MAX_LOGS):
                self.theirs[record.log] = record.seq
        self._note_progress(accepted)
        if accepted.fault is not None:
            raise accepted.fault
        if accepted.early and not self._asked and trio.current_time() - self._heads_at >= AGAIN_S:
            self._say_heads()
        self.ask()

    def _note_progress(self, accepted: Accepted) -> None:
        if accepted.new:
            self._asked_at, self._mute = trio.current_time(), False
        ends = self.mandate.books.journal.ends
        self._asked = {log: seq for log, seq in self._asked.items() if log not in ends or ends[log].seq < seq}

    # ---- what we give

    async def _serve_records(self, want: m.Want) -> None:
        ranges = {(r.device, r.incarnation): (r.first, r.last) for r in want.ranges}
        after = 0
        while True:
            answer = await self._read(partial(self.mandate.books.journal.tails, ranges, _RECORDS, after))
            raws, after = answer or ([], 0)
            if raws:
                await self.peer.link.send(m.Records(self.handle, tuple(raws)))
            if not after:
                return

    async def _serve_chunks(self, want: m.WantChunks) -> None:
        """Read on while what was read is sent."""
        there, here = trio.open_memory_channel[list[m.Chunk | m.NoChunk]](0)
        async with here, trio.open_nursery() as nursery:  # whoever reads is stopped before nobody takes what they read
            nursery.start_soon(self._read_chunks, want.ids, there)
            async for answers in here:
                await self.peer.link.send_bulk(*answers)
                self.mandate.bytes_out += sum(len(answer.data) for answer in answers if isinstance(answer, m.Chunk))

    async def _read_chunks(self, ids: Sequence[Digest], there: trio.MemorySendChannel[list[m.Chunk | m.NoChunk]]) -> None:
        async with there:
            pieces = self.mandate.sources.pieces(ids)
            while ids:
                found = await self._read(partial(next, pieces, None)) or [(one, None) for one in ids]
                if any(data is None for _, data in found):
                    self.mandate.fetcher.sought(self)  # before it is looked once more: what comes in between is told or found
                    found = await self._read(partial(self._with_staged, found)) or found
                answers = [m.NoChunk(self.handle, one) if data is None else m.Chunk(self.handle, one, data) for one, data in found]
                await there.send(answers)
                ids = ids[len(found) :]

    def _with_staged(self, found: list[tuple[Digest, bytes | None]]) -> list[tuple[Digest, bytes | None]]:
        """The same with those that stand in no file yet, but in what is being fetched, or were on the way from there to a file just now."""
        arrivals, sources = self.mandate.arrivals, self.mandate.sources

        def once_more(digest: Digest) -> bytes | None:
            staged = arrivals.chunk(digest)
            return sources.chunk(digest) if staged is None else staged

        return [(digest, once_more(digest) if data is None else data) for digest, data in found]

    async def _serve_listing(self, want: m.WantListing) -> None:
        packed = await self._read(partial(self.mandate.packed_listing, want.listing))
        pages = 0 if packed is None else -(-len(packed) // m.LISTING_PAGE)
        if packed is None or want.page >= pages:
            await self.peer.link.send(m.NoListing(self.handle, want.listing))
            return
        data = packed[want.page * m.LISTING_PAGE : (want.page + 1) * m.LISTING_PAGE]
        await self.peer.link.send_bulk(m.Listing(self.handle, want.listing, want.page, pages, data))

    async def _read(self, work: Callable[[], T | None]) -> T | None:
        """Read something in a thread; what our own disk does not let us read we do not have, which costs no link."""
        try:
            found = await self.mandate.in_thread(work)
        except P2psyncError as e:
            if isinstance(e, UserError):
                self.mandate.troubled("reading", e)
            return None
        self.mandate.well("reading")
        return found


def _batches(raws: list[bytes]) -> Iterable[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for raw in raws:
        if batch and (size + len(raw) > _RECORDS or len(batch) == 1024):
            yield batch
            batch, size = [], 0
        batch.append(raw)
        size += len(raw)
    if batch:
        yield batch
