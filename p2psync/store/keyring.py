"""Secrets on disk: the device's three seeds and what a mandate's members share, in files that only their owner can read."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from p2psync.store.faults import reading
from p2psync.store.savefile import save
from p2psync.values.errors import UserError
from p2psync.values.keys import DeviceKeys, Secret
from p2psync.values.names import MandateId
from p2psync.values.packing import Plain, exactly, fields, pack, unpack

_LIMIT = 4096


class KeyExposed(UserError):
    """The key file {path} could be read by others. Run: chmod 600 “{path}”, and start again."""


class KeyDamaged(UserError):
    """The key file {path} is damaged. Restore it from a backup of this machine; without it this machine must be invited anew."""


@dataclass(frozen=True)
class MandateSecret:
    """What this machine holds in secret for one mandate.

    ``group`` are the group secrets by generation, the last one being current; ``root_seed`` is the root key's seed on the machine
    that created the mandate; ``incarnation`` names this device's log.
    """

    mandate: MandateId
    group: tuple[tuple[int, Secret], ...]
    root_seed: Secret | None
    incarnation: bytes


def device_keys(path: Path) -> DeviceKeys:
    """The keys in ``path``, made and kept on the first call.

    Raises:
        KeyExposed: others could read it.
        KeyDamaged: it is not a key file.
    """
    if not path.exists():
        seeds = [os.urandom(32) for _ in range(3)]
        save(path, pack([1, *seeds]), 0o600)
    data = _read(path)
    try:
        _, sign, transport, box = fields(unpack(data, _LIMIT), int, bytes, bytes, bytes)
        return DeviceKeys(*(Secret(exactly(seed, 32)) for seed in (sign, transport, box)))
    except Exception as e:
        raise KeyDamaged(path=path) from e


def save_mandate(path: Path, secret: MandateSecret) -> None:
    """Keep a mandate's secret, durably."""
    group: list[Plain] = [[generation, bytes(key)] for generation, key in secret.group]
    root = None if secret.root_seed is None else bytes(secret.root_seed)
    save(path, pack([1, secret.mandate, group, root, secret.incarnation]), 0o600)


def load_mandate(path: Path) -> MandateSecret:
    """A mandate's secret.

    Raises:
        KeyExposed: others could read it.
        KeyDamaged: it is not what ``save_mandate`` writes.
    """
    data = _read(path)
    try:
        _, mandate, group, root, incarnation = fields(unpack(data, _LIMIT), int, bytes, list, (bytes, type(None)), bytes)
        keys = tuple((int(generation), Secret(exactly(key, 32))) for generation, key in group)
        return MandateSecret(
            MandateId(exactly(mandate, 32)), keys, None if root is None else Secret(exactly(root, 32)), exactly(incarnation, 8)
        )
    except Exception as e:
        raise KeyDamaged(path=path) from e


def _read(path: Path) -> bytes:
    with reading(path), path.open("rb") as file:
        mode = os.fstat(file.fileno())
        if mode.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or mode.st_uid not in (os.geteuid(), 0):
            raise KeyExposed(path=path)
        return file.read(_LIMIT + 1)
