"""Large files, read outside the rounds of a mandate: nobody who saves something small waits until a gigabyte is read and on the disk.

A round that meets a large file which has changed asks for it here and goes on. Somebody reads it, brings it to the disk, and has it
looked at again; what was found then counts if the file still has the stamp that it was read under. Used by a round and one reader, each
in its thread.
"""

import os
import threading
from dataclasses import dataclass
from time import monotonic, time_ns
from typing import TypeAlias

from p2psync.store.chunking import describe
from p2psync.store.durable import start_writing
from p2psync.store.faults import write_fault
from p2psync.store.lasting import sync_known
from p2psync.store.root import Root, stamp_of
from p2psync.store.spots import Spot
from p2psync.values.content import Content, Listing, Stamp
from p2psync.values.errors import P2psyncError
from p2psync.values.names import RelPath


@dataclass(frozen=True, slots=True)
class Known:
    """What a file with this ``stamp`` was found to hold at ``at_ns`` (since 1970), when the disk had it."""

    stamp: Stamp
    at_ns: int
    content: Content
    listing: Listing


@dataclass(frozen=True, slots=True)
class Torn:
    """The file changed while it was read, which took so many seconds."""

    took: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The file could not be read or did not go to the disk; ``reason`` is a sentence."""

    reason: str


Found: TypeAlias = Known | Torn | Failed


class Apart:
    """The large files of one mandate that are to be read, and what was found in them. ``wanted``: where they are."""

    def __init__(self) -> None:
        self.wanted: dict[Spot, tuple[Root, tuple[str, ...]]] = {}
        self._lock = threading.Lock()
        self._reading: Spot | None = None
        self._found: dict[Spot, Found] = {}

    @property
    def busy(self) -> bool:
        """Whether something is wanted or being read."""
        return bool(self.wanted) or self._reading is not None

    def is_reading(self, name: RelPath) -> bool:
        """Whether something in this attachment is wanted or being read."""
        reading = self._reading
        return any(spot.path.top == name.text for spot in [*self.wanted.copy(), *((reading,) if reading else ())])

    def found(self, spot: Spot, root: Root, parts: tuple[str, ...], stamp: Stamp) -> Found | None:
        """What was found at a spot, once; None when it has to be read (again), which is then wanted."""
        with self._lock:
            found = self._found.pop(spot, None)
            if found is None or (isinstance(found, Known) and found.stamp != stamp):
                self.wanted[spot] = root, parts
                return None
            return found

    def read_next(self) -> Spot | None:
        """Read one file that is wanted; the spot, which is to be looked at again, or None."""
        with self._lock:
            if not self.wanted:
                return None
            spot, (root, parts) = next(iter(self.wanted.items()))
            del self.wanted[spot]
            self._reading = spot
        found: Found | None = None
        try:
            found = _read(root, parts)
        finally:
            with self._lock:
                self._reading = None
                if found is not None:
                    self._found[spot] = found
        return spot


def _read(root: Root, parts: tuple[str, ...]) -> Found:
    """Reads the file and has the disk take it, both at once."""
    began, at_ns = monotonic(), time_ns()
    try:
        fd = root.open_read(parts)
    except (OSError, P2psyncError):  # it is gone, or held: whoever looks next sees for itself
        return Torn(0.0)
    try:
        stamp = stamp_of(os.fstat(fd))
        start_writing(fd)
        content, listing = describe(fd, stamp.size)
        sync_known(fd)
        if stamp_of(os.fstat(fd)) != stamp or content.size != stamp.size:
            return Torn(monotonic() - began)
        return Known(stamp, at_ns, content, listing)
    except OSError as error:
        return Failed(str(write_fault(error, root.shown(parts))))
    finally:
        os.close(fd)
