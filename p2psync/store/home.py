"""The state directory of a device: its keys, the mandates it works on, and the tickets it is about to use.

device.key                 the three seeds of this device (0600)
mandates/<id>/secret       group secret, root key where it was founded here, the name of this device's log (0600)
mandates/<id>/ledger.db    journal and observations
mandates/<id>/vault.db     chunks of versions
joining/<invitation>       a ticket in use, until the mandate has opened or the ticket was refused (0600)
"""

import os
import pwd
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from p2psync.engine.invitation import introduce, make_join
from p2psync.store import keyring, resuming
from p2psync.store.books import Books
from p2psync.store.faults import reading, writing
from p2psync.store.keyring import MandateSecret
from p2psync.store.mandatefolder import make_folder
from p2psync.store.savefile import save, sync_parent
from p2psync.store.witness import Witness
from p2psync.values.acts import Genesis
from p2psync.values.errors import Malformed, UserError
from p2psync.values.keys import DeviceKeys, Secret, commitment
from p2psync.values.names import DeviceId, InviteId, MandateId
from p2psync.values.packing import fields, pack, unpack
from p2psync.values.record import Record
from p2psync.values.ticket import Ticket

_LIMIT = 512 * 1024


class HomeExposed(UserError):
    """Other users of this machine may write to the state directory “{path}”. Take that away, and start again: {command}"""


class HomeForeign(UserError):
    """The state directory “{path}” belongs to the user {owner}. Start p2psync as that user, or give it another one with --home."""


@dataclass(frozen=True)
class Joining:
    """A ticket in use: the two records that claim it, the same ones on every try, and where the mandate is to open."""

    ticket: Ticket
    text: bytes
    device: Record
    join: Record
    folder: Path


class Home:
    """The state directory ``path``, made when it is missing; ``now_ms`` tells the wall clock, ``nonce`` gives random bytes.

    The ``witness`` tells a state directory that was restored or copied, where there is one.
    """

    def __init__(
        self, path: Path, now_ms: Callable[[], int], nonce: Callable[[int], bytes] = os.urandom, witness: Witness | None = None
    ) -> None:
        self.path = path
        self._witness = witness
        self._now_ms = now_ms
        self._nonce = nonce
        with writing(path):
            is_new = not path.exists()
            for folder in (path, path / "mandates", path / "joining"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if is_new:  # what is in it becomes durable with the key of the device
                with suppress(PermissionError):  # the folder around it may be one that is not for us to read
                    sync_parent(path)
            status = path.stat()
        if status.st_uid != os.geteuid():
            raise HomeForeign(path=path, owner=_user(status.st_uid))
        if status.st_mode & 0o022:
            raise HomeExposed(path=path, command=f"chmod 700 {shlex.quote(str(path))}")
        self.keys: DeviceKeys = keyring.device_keys(path / "device.key")
        with suppress(OSError):  # what was begun and not finished; if not now, another time
            for left in list((path / "mandates").glob(".new-*")):
                shutil.rmtree(left, ignore_errors=True)

    @property
    def device(self) -> DeviceId:
        """This device."""
        return self.keys.device

    # ---- mandates

    def mandates(self) -> Iterator[Path]:
        """The directories of the mandates that this device works on."""
        with reading(self.path):
            found = sorted(p for p in (self.path / "mandates").iterdir() if len(p.name) == 64 and (p / "secret").exists())
        yield from found

    def open(self, state: Path) -> Books:
        """Open the books in one of these directories."""
        books = Books(state, self.keys, self._now_ms, self._nonce, self._witness)
        if books.journal.ends:
            resuming.recognise(books, self._witness)
        return books

    def found(self, name: str, person: str, device_name: str, platform: str, folder: Path) -> Books:
        """Found a new mandate, local to this machine, of which this device is the owner."""
        root, group = Secret(self._nonce(32)), Secret(self._nonce(32))
        root_key = DeviceKeys(root, root, root).signing
        root_public = bytes(root_key.verify_key)
        genesis = Genesis(name, root_public, self.device, commitment(group, root_public, 0), self._now_ms()).signed(root_key)
        mandate = genesis.founds
        incarnation = self._nonce(8)
        secret = MandateSecret(mandate, ((0, group),), root, incarnation)
        device = introduce(self.keys, mandate, incarnation, person, device_name, platform, self._now_ms())
        return self._begin(secret, [genesis, device], folder, shared=False)

    def _begin(self, secret: MandateSecret, records: list[Record], folder: Path, *, shared: bool) -> Books:
        """Make the directory of a mandate under a name that does not count yet, and give it its real one when all is in it."""
        new = self.path / "mandates" / f".new-{secret.mandate.hex()}"
        final = self.path / "mandates" / secret.mandate.hex()
        with writing(new):
            if new.exists():  # of a try that a full disk ended
                shutil.rmtree(new)
            new.mkdir(mode=0o700)
        keyring.save_mandate(new / "secret", secret)
        books = Books(new, self.keys, self._now_ms)
        accepted = books.accept([record.raw for record in records])
        if len(accepted.new) != len(records):
            books.close()
            why = "; ".join(why for _, why in accepted.alarms)
            raise accepted.fault or Malformed(why=why or "the first records of the mandate do not fit")
        books.ledger.put("folder", os.fsencode(folder))
        books.ledger.put("shared", b"1" if shared else b"0")
        books.close()
        with writing(final):
            new.rename(final)
            sync_parent(final)
        return self.open(final)

    def abandon(self, books: Books) -> None:
        """A mandate that was just founded is not wanted after all."""
        books.close()
        shutil.rmtree(books.state, ignore_errors=True)

    # ---- tickets in use

    def begin_joining(self, ticket: Ticket, text: bytes, person: str, device_name: str, platform: str, folder: Path) -> Joining:
        """Write down that a ticket is being used, with the records that claim it."""
        device = introduce(self.keys, ticket.mandate, self._nonce(8), person, device_name, platform, self._now_ms())
        join = make_join(ticket, self.keys, device, self._now_ms())
        save(self._joining(ticket.invite), pack([text, device.raw, join.raw, os.fsencode(folder)]))
        return Joining(ticket, text, device, join, folder)

    def joinings(self) -> Iterator[Joining]:
        """The tickets in use."""
        with reading(self.path):
            found = sorted((self.path / "joining").iterdir())
        for path in found:
            try:
                text, device, join, folder = fields(unpack(path.read_bytes(), _LIMIT), bytes, bytes, bytes, bytes)
                ticket = Ticket.parse(text)
                yield Joining(ticket, text, Record.parse(device), Record.parse(join), Path(os.fsdecode(folder)))
            except (Malformed, UserError, OSError):
                continue

    def joined(self, joining: Joining, keys: tuple[tuple[int, Secret], ...]) -> Books:
        """The mandate has opened: found its books here, and forget the ticket."""
        secret = MandateSecret(MandateId(joining.ticket.mandate), keys, None, joining.device.incarnation)
        genesis = Record.parse(joining.ticket.chain[0])
        make_folder(joining.folder)
        books = self._begin(secret, [genesis, joining.device, joining.join], joining.folder, shared=True)
        self.end_joining(joining.ticket.invite)
        return books

    def end_joining(self, invite: InviteId) -> None:
        """The ticket is not in use any more."""
        with writing(self.path):
            self._joining(invite).unlink(missing_ok=True)
            sync_parent(self._joining(invite))

    def _joining(self, invite: InviteId) -> Path:
        return self.path / "joining" / invite.hex()


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
