"""What one link has under way, for all mandates together, and whether the other side still answers.

No more is asked for at once than what the other side has promised to remember, nor than what it gives in half a second: so a fast link
is kept full, and a slow one is not asked for what somebody else may have by then.

All times are seconds of one clock.
"""

from dataclasses import dataclass, field

from p2psync.values.content import CHUNK_MAX

IN_FLIGHT = 5 * 1024 * 1024
"""Bytes asked for over one link and not arrived. Half of it keeps a gigabit full over 20 ms; all of it may be sent again after a kill."""
AT_FIRST = 1024 * 1024
"""As long as it is not known how fast a link is."""
AT_LEAST = CHUNK_MAX
"""However slow it is."""
AHEAD_S = 0.5
"""Seconds for which enough is asked for."""
MEASURED_S = 0.2
"""Seconds after which what came is taken for the speed."""
ITEMS = 1024
"""Chunks and pages of chunk lists asked for over one link and not arrived."""

SILENT_AFTER = 1.5
"""Seconds without any answer after which what somebody owes is late."""
SLOW_AFTER = 3.0
"""Seconds after which a chunk is late that has not come from somebody who answers."""


@dataclass
class Load:
    """What is under way on one link. While ``resting``, the other side did not answer, and is asked for nothing.

    ``heard_at`` is when it last answered something, ``held_at`` until when we did not listen ourselves. One that is ``late`` owes
    something and is silent: it is asked for nothing more until it answers. ``window`` is how many bytes may be under way.
    """

    items: int = 0
    size: int = 0
    resting: bool = False
    late: bool = False
    heard_at: float = 0.0
    held_at: float = 0.0
    window: int = field(default_factory=lambda: AT_FIRST)
    _given: int = field(default=0, repr=False)
    _measured_at: float = field(default=0.0, repr=False)

    @property
    def answers(self) -> bool:
        """Whether the other side can be expected to answer."""
        return not self.resting and not self.late

    @property
    def light(self) -> bool:
        """Whether it is time to ask for more: so that requests are few and large, half of what may be under way has to have come."""
        return self.answers and self.items <= ITEMS // 2 and self.size <= self.window // 2

    def takes(self, size: int) -> bool:
        """Whether one more of ``size`` bytes may be asked for; a light link takes one of any size."""
        return self.items < ITEMS and (self.size + size <= self.window or self.size <= self.window // 2)

    def add(self, size: int, now: float = 0.0) -> None:
        """One more was asked for."""
        if not self.items:
            self.heard_at = max(self.heard_at, now)  # from when something is owed the silence counts
            self._given, self._measured_at = 0, now
        self.items += 1
        self.size += size

    def done(self, size: int) -> None:
        """One has come, or is not awaited any more."""
        self.items -= 1
        self.size -= size
        self._given += size

    def heard(self, now: float) -> bool:
        """The other side answered something; returns whether it had been late."""
        took = now - self._measured_at
        if took >= MEASURED_S and self._given:
            self.window = min(max(int(self._given / took * AHEAD_S), AT_LEAST), IN_FLIGHT)
            self._given, self._measured_at = 0, now
        was_late, self.late, self.heard_at = self.late, False, now
        return was_late

    def held_up(self, now: float) -> None:
        """Until now we did not listen, so that silence was no wonder."""
        self.heard_at = self.held_at = now

    def judge(self, now: float) -> bool:
        """Whether the other side owes something and has been silent for too long: then it is late."""
        self.late = self.late or bool(self.items and now - self.heard_at >= SILENT_AFTER)
        return self.late

    def is_due(self, asked_at: float, now: float) -> bool:
        """Whether something that was asked for then should have come by now."""
        silent, slow = now - max(asked_at, self.heard_at), now - max(asked_at, self.held_at)
        return silent >= SILENT_AFTER or slow >= SLOW_AFTER
