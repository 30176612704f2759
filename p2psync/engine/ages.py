"""How long ago was a file written? Its disk says when, by a clock that people set and that is set by itself.

Right after that clock was set, ahead or back, what it says of a moment ago means nothing: nothing is older then than just written.
"""

import math

from p2psync.engine.settle import QUIET

_STEP = 0.25
"""Seconds by which the clock and the monotonic one may drift apart between two questions; more is a step."""


class Ages:
    """Ages by a clock that may be set at any time."""

    def __init__(self) -> None:
        self._ahead: float | None = None
        self._set_at = -math.inf

    def age(self, written_ns: int, wall_ns: int, now: float) -> float:
        """Seconds since ``written_ns``, where it is ``wall_ns`` by the same clock and ``now`` (seconds) by a monotonic one; 0 where nobody
        can tell, since the clock was set a moment ago. Negative for what claims to be of the future.
        """
        ahead = wall_ns / 1e9 - now
        if self._ahead is not None and abs(ahead - self._ahead) > _STEP:
            self._set_at = now
        self._ahead = ahead
        return 0.0 if now - self._set_at < QUIET else (wall_ns - written_ns) / 1e9
