"""What arrives before anybody asked for it: small contents travel ahead of the record that announces them, and wait here for their round.

Nobody relies on it: what does not fit, or comes too early, is asked for like everything else.
"""

import threading

from p2psync.values.digest import Digest

MOST = 1024 * 1024
"""Bytes that one mandate holds in memory for this, whatever members send."""


class Early:
    """Chunks and chunk lists by their digests, which whoever puts them in has checked; the oldest give way. For several threads."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._held: dict[Digest, bytes] = {}
        self._size = 0

    def put(self, digest: Digest, data: bytes) -> None:
        """Hold this for a while; not at all when it is too large."""
        if len(data) > self._most:
            return
        with self._lock:
            self._size += len(data) - len(self._held.pop(digest, b""))
            self._held[digest] = data
            while self._size > self._most:
                self._size -= len(self._held.pop(next(iter(self._held))))

    def take(self, digest: Digest) -> bytes | None:
        """What is held under this digest, and no longer; None when it is not here."""
        with self._lock:
            data = self._held.pop(digest, None)
            self._size -= len(data or b"")
            return data

    def __bool__(self) -> bool:
        return bool(self._held)
