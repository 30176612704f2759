"""Fetching what one mandate's files lack: chunk lists page by page, chunks from whoever has them, written down in batches.

Nothing is a task of its own to lose: wants are derived anew after each round, and what has arrived is in the vault or in a staging
file, where the next round finds it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from p2psync.engine.transfer import Transfer
from p2psync.store.arrivals import Arrivals
from p2psync.store.jobs import Want
from p2psync.values.content import MAX_LISTING, Content, Listing
from p2psync.values.digest import Digest, content_digest
from p2psync.values.errors import Malformed, UserError
from p2psync.values.names import RelPath

if TYPE_CHECKING:
    from p2psync.daemon.conversation import Conversation
    from p2psync.engine.messages import Listing as ListingPage

_BUFFER = 32 * 1024 * 1024
"""Bytes that may have arrived and not be written; then the links wait."""


@dataclass
class _ListingWant:
    content: Content
    pages: dict[int, bytes] = field(default_factory=dict)
    asked: "Conversation | None" = None
    lacks: set["Conversation"] = field(default_factory=set)


class Fetcher:
    """The wants of one mandate. ``deposit`` writes what arrives; ``ready`` is told the paths that may now be complete."""

    def __init__(self, deposit: Arrivals, ready: Callable[[set[RelPath]], None], failed: Callable[[UserError], None]) -> None:
        self._deposit = deposit
        self._ready = ready
        self._failed = failed
        self.wants: dict[RelPath, Want] = {}
        self._transfer: Transfer[Conversation] = Transfer()
        self._listings: dict[Digest, _ListingWant] = {}
        self._paths: dict[Digest, set[RelPath]] = {}
        self._left: dict[RelPath, int] = {}
        self._buffer: list[tuple[Digest, bytes]] = []
        self._buffered = 0
        self.bytes_in = 0
        self._arrived = trio.Event()
        self._room = trio.Event()
        self._conversations: list[Conversation] = []

    # ---- wants

    def update(self, done: set[RelPath], wants: dict[RelPath, Want]) -> None:
        """After a round: these paths want nothing any more, unless they are in ``wants``."""
        for path in done:
            old = self.wants.pop(path, None)
            if old is not None and path not in wants:
                self._forget(path, old)
        for path, want in wants.items():
            self.wants[path] = want
            self._left[path] = len(want.chunks)
            for chunk in want.chunks:
                self._paths.setdefault(chunk.digest, set()).add(path)
            self._transfer.want(((chunk.digest, chunk.size) for chunk in want.chunks), of=want.content.size)
            if want.listing is None:
                self._listings.setdefault(want.content.listing, _ListingWant(want.content))
        self._ask_everybody()

    def _forget(self, path: RelPath, want: Want) -> None:
        self._left.pop(path, None)
        for chunk in want.chunks:
            paths = self._paths.get(chunk.digest, set())
            paths.discard(path)
            if not paths:
                self._paths.pop(chunk.digest, None)
                self._transfer.drop([chunk.digest])
        if want.listing is None and not any(w.content.listing == want.content.listing for w in self.wants.values()):
            self._listings.pop(want.content.listing, None)

    @property
    def missing(self) -> tuple[int, int]:
        """Files and bytes that are wanted and not here."""
        size = sum(sum(chunk.size for chunk in want.chunks) if want.listing else want.content.size for want in self.wants.values())
        return len(self.wants), size

    def nobody_has(self, path: RelPath) -> bool:
        """Whether no machine that is online has what this path wants."""
        want = self.wants.get(path)
        if want is None:
            return False
        if want.listing is None:
            listing = self._listings.get(want.content.listing)
            return listing is None or all(c in listing.lacks for c in self._conversations)
        return any(self._transfer.nobody_has(chunk.digest) for chunk in want.chunks)

    # ---- peers

    def join(self, conversation: "Conversation") -> None:
        """This conversation can be asked from now on."""
        self._conversations.append(conversation)
        self._transfer.add_peer(conversation)
        self._ask_everybody()

    def leave(self, conversation: "Conversation") -> None:
        """It has ended; others are asked for what it owed."""
        if conversation not in self._conversations:
            return
        self._conversations.remove(conversation)
        self._transfer.remove_peer(conversation)
        for listing in self._listings.values():
            listing.lacks.discard(conversation)
            if listing.asked is conversation:
                listing.asked = None
        self._ask_everybody()

    def has_more(self, conversation: "Conversation") -> None:
        """The peer's disk moved on: it may have what it lacked."""
        self._transfer.has_more(conversation)
        for listing in self._listings.values():
            listing.lacks.discard(conversation)
        self._ask_everybody()

    def _ask_everybody(self) -> None:
        for conversation in self._conversations:
            self._ask(conversation)

    def _ask(self, conversation: "Conversation") -> None:
        for listing in self._listings.values():
            if listing.asked is None and conversation not in listing.lacks:
                listing.asked = conversation
                conversation.ask_listing(listing.content, len(listing.pages))
        while ids := self._transfer.requests(conversation):
            conversation.ask_chunks(ids)

    # ---- what arrives

    async def chunk(self, conversation: "Conversation", digest: Digest, data: bytes) -> None:
        """A chunk has arrived; waits while too much is not written yet. Raises: Malformed when it is not the one that it claims to be."""
        if content_digest(data) != digest:
            raise Malformed(why="a chunk with another digest")
        self._transfer.arrived(digest)
        self.bytes_in += len(data)
        if digest in self._paths:
            self._buffer.append((digest, data))
            self._buffered += len(data)
            self._arrived.set()
        self._ask(conversation)
        while self._buffered > _BUFFER:
            self._room = trio.Event()
            await self._room.wait()

    def no_chunk(self, conversation: "Conversation", digest: Digest) -> None:
        """The peer lacks a chunk: another one is asked."""
        self._transfer.lacks(conversation, digest)
        self._ask_everybody()

    async def page(self, conversation: "Conversation", page: "ListingPage") -> None:
        """A page of a chunk list has arrived. Raises: Malformed when the whole list is not the one asked for."""
        want = self._listings.get(page.listing)
        if want is None or want.asked is not conversation or page.page != len(want.pages):
            return
        want.pages[page.page] = page.data
        if sum(map(len, want.pages.values())) > MAX_LISTING:
            raise Malformed(why="a chunk list that is too long")
        if len(want.pages) < page.pages:
            conversation.ask_listing(want.content, len(want.pages))
            return
        packed = b"".join(want.pages[index] for index in range(page.pages))
        want.pages.clear()
        want.asked = None
        listing = Listing.received(packed, want.content)
        await trio.to_thread.run_sync(self._deposit.listing, want.content, listing)
        self._listings.pop(page.listing, None)
        self._ready({path for path, w in self.wants.items() if w.content.listing == page.listing})

    def no_listing(self, conversation: "Conversation", listing: Digest) -> None:
        """The peer lacks a chunk list: another one is asked."""
        want = self._listings.get(listing)
        if want is not None and want.asked is conversation:
            want.asked = None
            want.pages.clear()
            want.lacks.add(conversation)
            self._ask_everybody()

    async def write_down(self) -> None:
        """Write what arrives, batch after batch, for as long as the mandate lives."""
        while True:
            await self._arrived.wait()
            self._arrived = trio.Event()
            batch, self._buffer = self._buffer, []
            if not batch:
                continue
            try:
                await trio.to_thread.run_sync(self._deposit.chunks, batch)
                self._finished(batch)
            except UserError as e:
                self._failed(e)
            self._buffered -= sum(len(data) for _, data in batch)
            self._room.set()

    def _finished(self, batch: list[tuple[Digest, bytes]]) -> None:
        """Tell the paths whose last missing chunk was among these."""
        complete: set[RelPath] = set()
        for digest, _ in batch:
            for path in self._paths.pop(digest, ()):
                self._left[path] -= 1
                if not self._left[path]:
                    complete.add(path)
        if complete:
            self._ready(complete)
