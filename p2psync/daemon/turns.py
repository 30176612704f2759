"""Whose turn it is to ask the other side of one link for content, and whether it still answers.

The mandates that two machines share take turns on what a link may have under way (engine/load). What a peer owes and does not give
within moments is asked of others as well; one that owes answers and gives none for a minute is asked for nothing for a while.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from p2psync.engine.load import Load

if TYPE_CHECKING:
    from p2psync.daemon.conversation import Conversation
    from p2psync.daemon.peer import Peer

STALLED_S = 60.0
"""Seconds without any answer after which what was asked is asked of somebody else."""
REST_S = 60.0
"""Seconds after which one that did not answer is asked again."""
LOOK_S = 5.0
TEND_S = 0.5
"""Seconds between two looks at what is late, while something is owed."""


class Turns:
    """The turns of one peer."""

    def __init__(self, peer: "Peer") -> None:
        now = trio.current_time()
        self.load = Load(heard_at=now, held_at=now)
        self._peer = peer
        self._waiting: dict[Conversation, None] = {}
        self._owes = trio.Event()
        self._held_up = 0

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """Within the block we do not listen ourselves, and silence is no wonder."""
        self._held_up += 1
        try:
            yield
        finally:
            self._held_up -= 1
            self.load.held_up(trio.current_time())

    def wait(self, conversation: "Conversation") -> None:
        """Let this conversation ask for more as soon as there is room."""
        self._waiting[conversation] = None

    def owing(self) -> None:
        """The other side may have been asked for something: see that it gives it in time."""
        if self.load.items:
            self._owes.set()

    def answered(self) -> None:
        """The other side answered something."""
        was_late = self.load.heard(trio.current_time())
        if self.load.resting:
            self._wake()
        elif was_late:
            for conversation in list(self._peer.conversations.values()):
                conversation.mandate.fetcher.answers(conversation)
        self._take_turns()

    def _take_turns(self) -> None:
        for conversation in list(self._waiting):
            if self.load.light:
                self._waiting.pop(conversation, None)
                conversation.mandate.fetcher.ask(conversation)

    async def watch(self) -> None:
        """See whether it answers, until cancelled."""
        looked_at = trio.current_time()
        while True:
            await self._pause()
            now = trio.current_time()
            silent = now - self.load.heard_at
            if self.load.resting:
                if silent >= REST_S:
                    self._wake()
            elif self.load.items and not self._held_up:
                if silent >= STALLED_S:
                    self._rest()
                else:
                    self._tend(now)
            if now - looked_at >= LOOK_S:
                looked_at = now
                for conversation in list(self._peer.conversations.values()):
                    conversation.look_after()

    async def _pause(self) -> None:
        if self.load.items:
            await trio.sleep(TEND_S)
        else:
            self._owes = trio.Event()
            with trio.move_on_after(LOOK_S):
                await self._owes.wait()

    def _tend(self, now: float) -> None:
        self.load.judge(now)
        for conversation in list(self._peer.conversations.values()):
            conversation.mandate.fetcher.tend(conversation)

    def _rest(self) -> None:
        self.load.resting, self.load.late, self.load.heard_at = True, False, trio.current_time()
        for conversation in list(self._peer.conversations.values()):
            conversation.mandate.fetcher.gave_up(conversation)

    def _wake(self) -> None:
        self.load.resting, self.load.heard_at = False, trio.current_time()
        for conversation in list(self._peer.conversations.values()):
            conversation.mandate.fetcher.has_more(conversation)
