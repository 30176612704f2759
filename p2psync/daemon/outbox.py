"""What waits on one link: messages to be sent, and requests of the other side to be served. Both are bounded.

A member that takes what it is sent too slowly gets no more news for a while (``crowded``) and is told where we are afterwards; one that
makes us say more than it takes, or asks for more than it may, is left.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable

import trio

from p2psync.engine import messages as m
from p2psync.engine.encoding import Message
from p2psync.values.errors import PeerError

log = logging.getLogger(__name__)

CROWDED = 1024 * 1024
"""Bytes that wait, about, from which on news is not queued."""
MOST = 16 * 1024 * 1024
"""Bytes that may wait at all."""
JOBS = 2048
"""Requests of a peer that wait to be served; twice what an honest one has under way."""


class TooMuch(PeerError):
    """The other machine asked for more than it may, or does not take the answers."""


class Outbox:
    """Sends what is put in, in order; ``drained`` is called whenever all of it was sent."""

    def __init__(self, send: Callable[[Message], Awaitable[None]], drained: Callable[[], None]) -> None:
        self._send, self._drained = send, drained
        self._waiting: deque[Message] = deque()
        self._size = 0
        self._something = trio.Event()

    @property
    def crowded(self) -> bool:
        """Whether news had better wait."""
        return self._size > CROWDED

    @property
    def full(self) -> bool:
        """Whether more waits than may."""
        return self._size > MOST

    def put(self, message: Message) -> None:
        """Send this as soon as the link takes it."""
        self._waiting.append(message)
        self._size += weight(message)
        self._something.set()

    async def run(self) -> None:
        """Send, until cancelled. Raises: LinkClosed."""
        while True:
            await self._something.wait()
            self._something = trio.Event()
            while self._waiting:
                message = self._waiting.popleft()
                log.debug("say %s", type(message).__name__)
                await self._send(message)
                self._size -= weight(message)
            self._drained()


class Lane:
    """Serves the requests of a peer, one after the other."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], Awaitable[None]]] = deque()
        self._something = trio.Event()

    def add(self, job: Callable[[], Awaitable[None]]) -> None:
        """Serve this when what came before it is served. Raises: TooMuch."""
        if len(self._jobs) >= JOBS:
            raise TooMuch()
        self._jobs.append(job)
        self._something.set()

    async def run(self) -> None:
        """Serve, until cancelled. Raises: LinkClosed."""
        while True:
            await self._something.wait()
            self._something = trio.Event()
            while self._jobs:
                await self._jobs.popleft()()


def weight(message: Message) -> int:
    """About how many bytes a message takes while it waits."""
    match message:
        case m.Chunk() | m.Listing():
            return 256 + len(message.data)
        case m.Records() | m.Introduce():
            return 256 + sum(map(len, message.records))
        case m.Heads():
            return 256 + 200 * len(message.logs)
        case m.Want():
            return 256 + 200 * len(message.ranges)
        case m.WantChunks():
            return 256 + 80 * len(message.ids)
        case m.Whereabouts():
            return 256 + 1000 * len(message.members)
    return 256
