"""What two machines say to each other about one mandate that they share, from the side of one of them.

Records flow by comparing journals: each side tells its heads, asks for what it lacks, and pushes what is new. What arrives too early
waits until what it stands on is there. Content flows on request only.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import trio

from p2psync.engine import messages as m
from p2psync.store.journal import Log
from p2psync.values.content import Content
from p2psync.values.digest import Digest
from p2psync.values.names import DeviceId
from p2psync.values.record import Record

if TYPE_CHECKING:
    from p2psync.daemon.mandate import Mandate
    from p2psync.daemon.peer import Peer

_RECORDS = 192 * 1024
"""Bytes of records in one message."""
_EARLY = 2000
"""Records kept that came before what they stand on, for each peer."""


class Conversation:
    """One peer, one mandate. ``handle`` is our number for the mandate on this link."""

    def __init__(self, peer: "Peer", mandate: "Mandate", handle: int) -> None:
        self.peer = peer
        self.mandate = mandate
        self.handle = handle
        self.device: DeviceId = peer.device
        self.held: m.Held | None = None
        self.theirs: dict[Log, int] = {}
        self._early: list[bytes] = []
        self._asked: dict[Log, int] = {}
        self._told: m.Held | None = None

    # ---- what we say

    def begin(self) -> None:
        """Tell what we have: the first words about this mandate."""
        self.peer.say(self._heads())
        self.tell_held()
        members = (*self.peer.whereabouts(), *self.mandate.addresses_of_others(self.device))[: m.MAX_DEVICES]
        if members:
            self.peer.say(m.Whereabouts(self.handle, members))

    def push(self, records: Iterable[Record]) -> None:
        """Send new records at once, those that the peer is not known to have."""
        raws = []
        for record in records:
            if self.theirs.get(record.log, 0) < record.seq:
                raws.append(record.raw)
                self.theirs[record.log] = record.seq
        for batch in _batches(raws):
            self.peer.say(m.Records(self.handle, tuple(batch)))

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
            self.peer.say(m.Want(self.handle, tuple(ranges)))

    def is_asked(self, log: Log, seq: int) -> bool:
        """Whether this peer has been asked for that log up to ``seq`` and has not answered yet."""
        return self._asked.get(log, 0) >= seq

    def ask_chunks(self, ids: list[Digest]) -> None:
        """Ask for chunks."""
        self.peer.say(m.WantChunks(self.handle, tuple(ids)))

    def ask_listing(self, content: Content, page: int) -> None:
        """Ask for one page of a chunk list."""
        self.peer.say(m.WantListing(self.handle, content.listing, page))

    def _heads(self) -> m.Heads:
        ends = self.mandate.books.journal.ends
        return m.Heads(self.handle, tuple(m.LogHead(*log, end.seq, end.id) for log, end in sorted(ends.items())))

    # ---- what we hear

    async def heard(self, message: object) -> None:
        """Take one message about this mandate."""
        match message:
            case m.Heads():
                self.theirs = {(head.device, head.incarnation): head.seq for head in message.logs}
                self._asked.clear()
                self.ask()
            case m.Want():
                self.peer.serve(lambda: self._serve_records(message))
            case m.Records():
                await self._take(message.records)
            case m.WantChunks():
                self.peer.serve(lambda: self._serve_chunks(message))
            case m.Chunk():
                await self.mandate.fetcher.chunk(self, message.id, message.data)
            case m.NoChunk():
                self.mandate.fetcher.no_chunk(self, message.id)
            case m.WantListing():
                self.peer.serve(lambda: self._serve_listing(message))
            case m.Listing():
                await self.mandate.fetcher.page(self, message)
            case m.NoListing():
                self.mandate.fetcher.no_listing(self, message.listing)
            case m.Held():
                self.held = message
                self.mandate.fetcher.has_more(self)
                self.mandate.changed()
            case m.Whereabouts():
                self.mandate.hear_of(message.members)

    async def _take(self, raws: tuple[bytes, ...]) -> None:
        accepted = await self.mandate.accept([*self._early, *raws], self)
        for record in [*accepted.new, *accepted.early]:
            if self.theirs.get(record.log, 0) < record.seq:
                self.theirs[record.log] = record.seq
        self._early = [record.raw for record in accepted.early][-_EARLY:]
        ends = self.mandate.books.journal.ends
        self._asked = {log: seq for log, seq in self._asked.items() if log not in ends or ends[log].seq < seq}
        if self._early and not self._asked:
            self.peer.say(self._heads())
        self.ask()

    async def _serve_records(self, want: m.Want) -> None:
        ranges = {(r.device, r.incarnation): (r.first, r.last) for r in want.ranges}
        after = 0
        while True:
            raws, after = await trio.to_thread.run_sync(self.mandate.books.journal.tails, ranges, _RECORDS, after)
            if raws:
                await self.peer.link.send(m.Records(self.handle, tuple(raws)))
            if not after:
                return

    async def _serve_chunks(self, want: m.WantChunks) -> None:
        for digest in want.ids:
            data = await trio.to_thread.run_sync(self.mandate.sources.chunk, digest)
            if data is None:
                await self.peer.link.send(m.NoChunk(self.handle, digest))
            else:
                await self.peer.link.send(m.Chunk(self.handle, digest, data))
                self.mandate.bytes_out += len(data)

    async def _serve_listing(self, want: m.WantListing) -> None:
        packed = await trio.to_thread.run_sync(self.mandate.packed_listing, want.listing)
        pages = 0 if packed is None else -(-len(packed) // m.LISTING_PAGE)
        if packed is None or want.page >= pages:
            await self.peer.link.send(m.NoListing(self.handle, want.listing))
            return
        data = packed[want.page * m.LISTING_PAGE : (want.page + 1) * m.LISTING_PAGE]
        await self.peer.link.send(m.Listing(self.handle, want.listing, want.page, pages, data))


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
