"""The pulse of a link: how long the other side has been silent, and what follows from it. No I/O; seconds of one clock come in.

Time counts only while somebody listens: who does not listen cannot say that nobody spoke.
"""

from dataclasses import dataclass
from typing import Final

PING_AFTER: Final = 10.0
DEAD_AFTER: Final = 30.0
"""Seconds of silence after which we ask, and after which we give up."""
PROVE_WITHIN: Final = 20.0
"""Seconds for somebody behind a right gate to say hello as a member, or to ask for admission."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why the link is over, if it is; whether to ask if anybody is there; and seconds until the next look."""

    over: str | None
    ask: bool
    pause: float


class Pulse:
    """The silence of the other side of one link."""

    def __init__(self) -> None:
        self._listened = 0.0
        self._since: float | None = None
        self._unproven_since: float | None = None

    @property
    def listening(self) -> bool:
        """Whether somebody waits for the other side right now."""
        return self._since is not None

    def listen(self, now: float) -> None:
        """Somebody begins to wait for the other side."""
        self._since = now

    def rest(self, now: float) -> None:
        """Nobody waits any more."""
        self._listened, self._since = self.silence(now), None

    def heard(self, now: float) -> None:
        """The other side said something."""
        self._listened = 0.0
        self._since = now if self.listening else None

    def silence(self, now: float) -> float:
        """Seconds that somebody has listened for since the other side was last heard."""
        return self._listened + (0.0 if self._since is None else now - self._since)

    def judge(self, now: float, *, proven: bool) -> Verdict:
        """What to do now; ``proven`` tells whether the other side has said for what it is here."""
        if proven:
            self._unproven_since = None
        elif self._unproven_since is None:
            self._unproven_since = now
        silence, unproven = self.silence(now), now - (now if self._unproven_since is None else self._unproven_since)
        if silence >= DEAD_AFTER:
            return Verdict(f"nothing was heard of it for {DEAD_AFTER:.0f} s", False, 0.0)
        if unproven >= PROVE_WITHIN:
            return Verdict(f"it did not say who it is for {PROVE_WITHIN:.0f} s", False, 0.0)
        pause = min(PING_AFTER - silence % PING_AFTER, PROVE_WITHIN - unproven)
        return Verdict(None, silence >= PING_AFTER, max(pause, 0.01))
