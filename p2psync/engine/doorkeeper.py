"""The doorkeeper: how many strangers may stand in the door, and how often one may come (docs/protocol.md, “Before authentication”).

A stranger costs a socket, a few hundred bytes and, at worst, one symmetric decryption. These limits bound how many at once and how
many a second. Whoever proves to hold a key of ours gets its turn back, so that members never use up what strangers may.
"""

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

MAX_PLACES = 4096
"""Addresses that are remembered; beyond them the one that came longest ago is forgotten."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the doorkeeper allows: numbers of connections, and new ones per minute (each address) and per second (all)."""

    strangers: int = 32
    strangers_each: int = 4
    members: int = 64
    burst: int = 10
    each_minute: float = 20.0
    each_second: float = 50.0


class Doorkeeper:
    """Counts who is in the door and who is inside. Times are seconds of one clock; a ``place`` comes from :func:`place_of`."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._in_door: dict[str, int] = {}
        self._inside = 0
        self._rates: OrderedDict[str, _Bucket] = OrderedDict()
        self._rate = _Bucket(limits.each_second, limits.each_second)

    def let_in(self, place: str, now: float) -> bool:
        """Whether somebody from ``place`` may stand in the door; if so, :meth:`left_door` is due later."""
        here = self._in_door.get(place, 0)
        if sum(self._in_door.values()) >= self.limits.strangers or here >= self.limits.strangers_each:
            return False
        if not self._bucket(place).take(now, self.limits.each_minute / 60) or not self._rate.take(now, self.limits.each_second):
            return False
        self._in_door[place] = here + 1
        return True

    def left_door(self, place: str, *, proved: bool) -> None:
        """Somebody went away again, or ``proved`` to hold a key of ours."""
        here = self._in_door.pop(place) - 1
        if here:
            self._in_door[place] = here
        if proved:
            self._bucket(place).give_back()
            self._rate.give_back()

    def seat(self) -> bool:
        """Whether there is a place inside; if so, :meth:`unseat` is due later."""
        free = self._inside < self.limits.members
        self._inside += free
        return free

    def unseat(self) -> None:
        """Somebody left."""
        self._inside -= 1

    def _bucket(self, place: str) -> "_Bucket":
        bucket = self._rates.setdefault(place, _Bucket(self.limits.burst, self.limits.burst))
        self._rates.move_to_end(place)
        if len(self._rates) > MAX_PLACES:
            self._rates.popitem(last=False)
        return bucket


@dataclass
class _Bucket:
    """A token bucket: so many at once, and more as time goes by."""

    size: float
    tokens: float
    filled: float = 0.0

    def take(self, now: float, per_second: float) -> bool:
        self.tokens = min(self.size, self.tokens + max(now - self.filled, 0.0) * per_second)
        self.filled = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def give_back(self) -> None:
        self.tokens = min(self.size, self.tokens + 1)


def place_of(host: str | None) -> str:
    """What counts as one address: an IPv4 address, or the first 64 bits of an IPv6 one, whose holder owns the rest."""
    try:
        address: IPv4Address | IPv6Address = ip_address((host or "").partition("%")[0])
    except ValueError:
        return host or ""
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.exploded if isinstance(address, IPv4Address) else address.exploded[:19]
