"""Whose turn it is to ask the other side of one link for content, and whether it still answers.

The mandates that two machines share take turns on what a link may have under way (engine/transfer). A peer that owes answers and gives
none for a minute is asked for nothing for a while, and the others are asked instead.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from p2psync.engine.transfer import Load

if TYPE_CHECKING:
    from p2psync.daemon.conversation import Conversation
    from p2psync.daemon.peer import Peer

STALLED_S = 60.0
"""Seconds without any answer after which what was asked is asked of somebody else."""
REST_S = 60.0
"""Seconds after which one that did not answer is asked again."""
LOOK_S = 5.0


class Turns:
    """The turns of one peer."""

    def __init__(self, peer: "Peer") -> None:
        self.load = Load()
        self._peer = peer
        self._waiting: dict[Conversation, None] = {}
        self._heard_at = trio.current_time()
        self._owed = False
        self._held_up = 0

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """Within the block we do not listen ourselves, and silence is no wonder."""
        self._held_up += 1
        try:
            yield
        finally:
            self._held_up -= 1
            self._heard_at = trio.current_time()

    def wait(self, conversation: "Conversation") -> None:
        """Let this conversation ask for more as soon as there is room."""
        self._waiting[conversation] = None
        self._note_debt()

    def answered(self) -> None:
        """The other side answered something."""
        self._heard_at = trio.current_time()
        if self.load.resting:
            self._wake()
        self._take_turns()

    def _take_turns(self) -> None:
        while self._waiting and self.load.light:
            conversation = next(iter(self._waiting))
            del self._waiting[conversation]
            conversation.mandate.fetcher.ask(conversation)

    def _note_debt(self) -> None:
        """From when something is owed the silence counts."""
        if self.load.items and not self._owed:
            self._heard_at = trio.current_time()
        self._owed = bool(self.load.items)

    async def watch(self) -> None:
        """See whether it answers, until cancelled."""
        while True:
            await trio.sleep(LOOK_S)
            self._note_debt()
            silent = trio.current_time() - self._heard_at
            if self.load.resting:
                if silent >= REST_S:
                    self._wake()
            elif self._owed and silent >= STALLED_S and not self._held_up:
                self._rest()
            for conversation in list(self._peer.conversations.values()):
                conversation.look_after()

    def _rest(self) -> None:
        self.load.resting, self._heard_at = True, trio.current_time()
        for conversation in list(self._peer.conversations.values()):
            conversation.mandate.fetcher.gave_up(conversation)

    def _wake(self) -> None:
        self.load.resting, self._heard_at = False, trio.current_time()
        for conversation in list(self._peer.conversations.values()):
            conversation.mandate.fetcher.has_more(conversation)
