"""The listener: lets machines in, strangers only as far as the door.

Modelled on ``trio.serve_listeners``. Attempts of strangers are logged at DEBUG, and once a minute as one number.
"""

import errno
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import trio

from p2psync.edge.link import Link
from p2psync.edge.meeting import address_of
from p2psync.engine.doorkeeper import Doorkeeper, Limits, place_of
from p2psync.engine.messages import CloseCode
from p2psync.values.errors import PeerError

log = logging.getLogger(__name__)

SUMMARY_EVERY: Final = 60.0
"""Seconds between two lines about strangers."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_BREATH: Final = 0.1
"""Seconds to wait when the system has no more sockets."""

Listener = trio.abc.Listener[Any]
Greet = Callable[[Any], Awaitable[Link]]
Talk = Callable[[Link], Awaitable[None]]


async def serve(
    listeners: Sequence[Listener],
    greet: Greet,
    talk: Talk,
    *,
    limits: Limits | None = None,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept connections until all ``listeners``, which belong to this function, are closed or it is cancelled.

    ``greet`` makes a link of a stream or raises PeerError (``edge.link.accept`` with its other arguments bound); ``talk`` has the link
    until it returns, and then it is closed. An error of ``talk`` costs its own link: a PeerError quietly, any other with a traceback in the
    log. With ``handler_nursery``, links outlive this function; otherwise closed listeners are not the end until the last link is.
    """
    door = _Door(greet, talk, Doorkeeper(limits or Limits()))
    async with trio.open_nursery() as nursery:
        within = handler_nursery or nursery
        async with trio.open_nursery() as doors:
            for listener in listeners:
                doors.start_soon(door.stand_at, listener, within)
            task_status.started()
            nursery.start_soon(door.report)
        door.closed.set()


class _Door:
    def __init__(self, greet: Greet, talk: Talk, keeper: Doorkeeper) -> None:
        self._greet, self._talk, self._keeper = greet, talk, keeper
        self._turned_away = 0
        self.closed = trio.Event()

    async def stand_at(self, listener: Listener, nursery: trio.Nursery) -> None:
        async with listener:
            while True:
                try:
                    nursery.start_soon(self._meet, await listener.accept())
                except trio.ClosedResourceError:
                    return
                except OSError as fault:
                    if fault.errno not in _EXHAUSTED:
                        raise
                    log.warning("cannot take another connection: %s", fault)
                    await trio.sleep(_BREATH)

    async def _meet(self, stream: trio.abc.Stream) -> None:
        address = address_of(stream)
        place = place_of(address[0] if address else None)
        if not self._keeper.let_in(place, trio.current_time()):
            self._turned_away += 1
            await trio.aclose_forcefully(stream)
            return
        try:
            await self._seat(await self._greeted(stream, place))
        except* PeerError as faults:
            log.debug("a connection from %s ended: %s", place, faults.exceptions)
        except* Exception as mistakes:  # one link must not take the others with it; but it is a bug
            log.error("a connection ended by a mistake of ours", exc_info=mistakes)

    async def _greeted(self, stream: trio.abc.Stream, place: str) -> Link:
        link = None
        try:
            link = await self._greet(stream)
            return link
        finally:
            self._turned_away += link is None
            self._keeper.left_door(place, proved=link is not None)

    async def _seat(self, link: Link) -> None:
        if not self._keeper.seat():
            await link.close(CloseCode.BUSY)
            return
        try:
            await self._talk(link)
        finally:
            self._keeper.unseat()
            await link.close()

    async def report(self) -> None:
        while not self.closed.is_set():
            with trio.move_on_after(SUMMARY_EVERY):
                await self.closed.wait()
            if self._turned_away:
                log.info("%d connections turned away", self._turned_away)
                self._turned_away = 0
