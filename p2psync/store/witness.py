"""A second witness of how far this machine's own logs go, kept outside the state directory.

Whoever restores the state directory from a backup, or copies it to another machine, does not restore or copy this. The witness is
told after the ledger, so it never knows more than a ledger that is in order; one that does not hold what the witness saw has lost it.
It is no more than that: without it all goes on as ever, and only the other machines can tell (store/resuming).
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from p2psync.values.digest import blake2b
from p2psync.values.errors import Malformed
from p2psync.values.names import PREFIX, DeviceId, MandateId, RecordId
from p2psync.values.packing import exactly, fields, pack, unpack

_LIMIT = 256
_MACHINE = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


class Seen(NamedTuple):
    """The end of this machine's log as it was last seen."""

    incarnation: bytes
    seq: int
    id: RecordId


class Witness:
    """The witness that writes below ``folder``, which is made when something is; ``machine`` are bytes that no other machine has."""

    def __init__(self, folder: Path, machine: bytes = b"") -> None:
        self.machine = machine
        self._folder = folder

    @classmethod
    def here(cls, folder: Path) -> "Witness":
        """The witness on this machine."""
        return cls(folder, machine_mark())

    def note(self, mandate: MandateId, device: DeviceId, seen: Seen) -> None:
        """Remember the end of the own log. Not synced, and not sure to work: a witness that knows less does no harm."""
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd, name = tempfile.mkstemp(prefix=f"{PREFIX}-", suffix=".new", dir=self._folder)
            with open(fd, "wb") as file:
                file.write(pack([1, *seen]))
            os.replace(name, self._file(mandate, device))

    def saw(self, mandate: MandateId, device: DeviceId) -> Seen | None:
        """The end of the own log as it was last noted, or None."""
        try:
            _, incarnation, seq, last = fields(unpack(self._file(mandate, device).read_bytes(), _LIMIT), int, bytes, int, bytes)
            return Seen(exactly(incarnation, 8), seq, RecordId(exactly(last, 32)))
        except (OSError, Malformed):
            return None

    def _file(self, mandate: MandateId, device: DeviceId) -> Path:
        return self._folder / f"{mandate.hex()[:32]}-{device.hex()[:32]}"


def machine_mark() -> bytes:
    """32 bytes that differ from those of any other machine, from machine-id(5), which is not to be told as it is; empty without one."""
    for path in _MACHINE:
        with suppress(OSError):
            if (text := path.read_bytes().strip()) and text != b"uninitialized":
                return blake2b(text, b"p2psync1-machine")
    return b""
