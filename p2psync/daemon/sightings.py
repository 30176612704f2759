"""Where the other members of a mandate were met, or are said to be."""

from collections.abc import Iterable
from typing import TypeAlias

from p2psync.store import addresses
from p2psync.store.books import Books
from p2psync.values.names import DeviceId

_SPOTS = 16
"""Addresses at which one member is tried."""

Whereabouts: TypeAlias = tuple[tuple[DeviceId, tuple[tuple[bytes, int], ...]], ...]


class Sightings:
    """What the ledger knows, and what peers say. An address proves nothing: who answers there has to prove who they are."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._told: dict[DeviceId, dict[DeviceId, list[tuple[str, int]]]] = {}

    def told(self, teller: DeviceId, members: Whereabouts) -> bool:
        """A peer says where other members were last met; whether that is news. It counts until the same peer says something else."""
        before = self._told.get(teller)
        self._told[teller] = {device: addresses.usable(spots) for device, spots in members if device != self._books.keys.device}
        return self._told[teller] != before

    def wanted(self) -> Iterable[DeviceId]:
        """Whom to look for: the other members; for a newcomer who does not know them yet, the one who made the ticket."""
        known = self._books.roster.members() if self._books.me is not None else addresses.devices(self._books.ledger.read())
        return [device for device in known if device != self._books.keys.device]

    def of(self, device: DeviceId) -> list[tuple[str, int]]:
        """Where to try to reach a member: where it was met, the latest first, then where others say that it is."""
        told = [spot for teller in self._told.values() for spot in teller.get(device, ())]
        return list(dict.fromkeys([*addresses.of(self._books.ledger.read(), device), *told]))[:_SPOTS]

    def of_others(self, device: DeviceId) -> Whereabouts:
        """Where the members other than ``device`` and us were last met."""
        return addresses.packed(self._books.ledger.read(), without={device, self._books.keys.device})
