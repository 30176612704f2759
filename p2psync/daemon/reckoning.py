"""How far this machine's disk, and those of the others, are behind a mandate's journal; and the figures of the mandate."""

from functools import partial
from typing import NamedTuple

import trio

from p2psync.daemon.bookwork import in_thread
from p2psync.daemon.conversation import Conversation
from p2psync.daemon.fetcher import Fetcher
from p2psync.engine import messages as m
from p2psync.engine.notices import Notices
from p2psync.store import versions
from p2psync.store.books import Books
from p2psync.store.figures import Figures, counted
from p2psync.store.jobs import Worked
from p2psync.values.errors import BadPath
from p2psync.values.names import DeviceId, RelPath

_NOT_HELD = {"waiting", "missing", "error", "halted", "receiving"}


class LastHeard(NamedTuple):
    """What a member that has gone last said of its disk: up to which of our entries it was (None: not known any more), and files lacked."""

    told: int | None
    lacks: int


class Reckoning:
    """Counts what one mandate's disk lacks: what is shown (``notices``), what is being fetched, and what rounds left undone."""

    def __init__(self, books: Books, notices: Notices, fetcher: Fetcher) -> None:
        self._books, self._notices, self._fetcher = books, notices, fetcher
        self.figures = Figures()
        self.last_heard: dict[DeviceId, LastHeard] = {}
        self._pending: set[RelPath] = set()
        self._behind: set[str] = set()
        self._count, self._counted = trio.Event(), trio.Event()

    # ---- our own disk

    async def take(self, worked: Worked) -> None:
        """Note which paths are behind the journal here, or may be, after a round, beside those that are being fetched."""
        there = self._books.locations()
        pending = (self._pending - worked.done) | set(worked.again) | worked.look_again
        self._pending = {path for path in pending if RelPath(path.top) in there}
        behind = {shown for shown, a in self._notices.items() if a.state in _NOT_HELD}
        doubtful = {shown for shown in behind if self._notices[shown].state == "error" and "/" in shown}
        if doubtful:
            behind -= await in_thread(self._books, partial(_nobodys, self._books, doubtful))
        behind |= {path.text for path in self._pending}
        self._behind = {shown for shown in behind if not self._fetcher.wants(shown)}

    def forget(self) -> None:
        """Drop what rounds said."""
        self._pending, self._behind = set(), set()

    def is_behind(self, shown: str) -> bool:
        """Whether this path is a reason for this disk to be behind the journal."""
        return shown in self._behind or self._fetcher.wants(shown)

    @property
    def lacking(self) -> tuple[int, int]:
        """Files and bytes by which our disk is behind the journal."""
        files, size = self._fetcher.missing
        return files + len(self._behind), size

    # ---- the others'

    def in_sync(self, conversation: Conversation) -> bool:
        """Whether this peer's disk holds what our journal says."""
        held = conversation.held
        return held is not None and held.view == self._books.journal.view() and not held.files

    def position_of(self, conversation: Conversation) -> int:
        """After how many of our entries the peer's disk is as far as the peer has said."""
        held = conversation.held
        return self._books.positions.get(held.view, 0) if held is not None and not held.files else 0

    def left(self, device: DeviceId, held: m.Held | None) -> None:
        """A member has gone, having said that of its disk."""
        if held is not None:
            self.last_heard[device] = LastHeard(self._books.positions.get(held.view), held.files)

    # ---- the figures

    async def counted(self) -> Figures:
        """The figures of the journal as it is; waits until they are counted."""
        while self.figures.view != self._books.journal.view():
            self._count.set()
            await self._counted.wait()
        return self.figures

    async def keep_counted(self) -> None:
        """Count whenever somebody waits for it, for as long as the mandate lives."""
        while True:
            self.figures = await in_thread(self._books, partial(counted, self._books))
            self._counted.set()
            self._counted = trio.Event()
            await self._count.wait()
            self._count = trio.Event()


def _nobodys(books: Books, shown: set[str]) -> set[str]:
    """Those of these paths that are nobody's versions: what only this machine has, and may not or cannot be shared."""

    def is_known(text: str) -> bool:
        try:
            return bool(versions.heads(books.ledger.read(), RelPath(text)).all)
        except BadPath:
            return False

    return {text for text in shown if not is_known(text)}
