"""The last resort of a stop: to leave all the same when a disk or a driver holds up a thread, which nothing can cancel.

Nothing is lost by it: what is on the disk is in order at every moment (docs/architecture.md, “Write down first, speak after”).
"""

import contextlib
import logging
import os
import threading
from pathlib import Path

log = logging.getLogger(__name__)

STOP_S = 8.0
"""Seconds that a stop may take."""
INTERRUPTED = 130
"""The exit code of a program that was interrupted, as shells have it."""


class LastResort:
    """Ends the process when a stop takes too long; ``socket`` is the status socket, which is removed then."""

    def __init__(self, socket: Path, seconds: float = STOP_S) -> None:
        self._socket = socket
        self._timer = threading.Timer(seconds, self._too_long)
        self._timer.name, self._timer.daemon = "last resort", True

    def begin(self) -> None:
        """A stop has begun."""
        self._timer.start()

    def call_off(self) -> None:
        """It is over."""
        self._timer.cancel()
        if self._timer.ident is not None:
            self._timer.join()

    def leave(self, code: int) -> None:
        """End the process now."""
        with contextlib.suppress(OSError):
            self._socket.unlink()
        os._exit(code)

    def _too_long(self) -> None:
        log.warning("stopped without waiting for a disk that does not answer")
        self.leave(0)
