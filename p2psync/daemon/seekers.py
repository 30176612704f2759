"""Who asked us for what we did not have yet: they are told what has come, so that they need not have it from the one who had it first.

What is told is a hint, a few times a second at most: whoever gets a chunk checks it, and asks somebody else when it does not come.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import trio

from p2psync.engine import messages as m
from p2psync.values.digest import Digest

if TYPE_CHECKING:
    from p2psync.daemon.conversation import Conversation

EVERY_S = 0.1
"""Seconds between two times that they are told."""
MOST = 65_536
"""Chunks that one of them is told of at once: those of 4 GiB."""


class Seekers:
    """The seekers of one mandate."""

    def __init__(self) -> None:
        self._seekers: set[Conversation] = set()
        self._come: list[Digest] = []
        self._news = trio.Event()

    def add(self, conversation: "Conversation", have: Iterator[Digest]) -> None:
        """This peer was told that we lack something; at first it is told what we ``have`` of what is on its way to us."""
        if conversation not in self._seekers and conversation.peer.features & m.HEARS_HAVE:
            self._seekers.add(conversation)
            conversation.tell_have([digest for digest, _ in zip(have, range(MOST), strict=False)])

    def remove(self, conversation: "Conversation") -> None:
        """It has all that it wants, or is gone."""
        self._seekers.discard(conversation)

    def came(self, digests: Iterable[Digest]) -> None:
        """These chunks can be had from us now."""
        if self._seekers:
            self._come += digests
            self._news.set()

    async def run(self) -> None:
        """Tell them, until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            come, self._come = self._come, []
            for conversation in list(self._seekers):
                conversation.tell_have(come)
            await trio.sleep(EVERY_S)
