"""The hint: an address at which a member was reachable when a ticket was made. Only addresses inside an office are taken.

A hint is no more than that: who dials it still decides by its own interfaces whether to, and the handshake whom it met.
"""

import ipaddress
from dataclasses import dataclass

from p2psync.values.errors import Malformed
from p2psync.values.packing import Plain, fields

MAX_HINTS = 8

_OFFICE = tuple(
    ipaddress.ip_network(net)
    for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8", "fc00::/7", "fe80::/10", "::1/128")
)
"""Private and link-local networks; and the own machine, for two daemons on one host."""


@dataclass(frozen=True, slots=True)
class Hint:
    """Address (4 or 16 bytes) and port of a member's listener."""

    address: bytes
    port: int

    def __post_init__(self) -> None:
        if not self.is_fit(self.address) or not 0 < self.port < 65536:
            raise Malformed(why="an address outside the office")

    @staticmethod
    def is_fit(address: bytes) -> bool:
        """Whether these 4 or 16 bytes are an address that a ticket may name."""
        return len(address) in (4, 16) and any(ipaddress.ip_address(address) in network for network in _OFFICE)

    @property
    def host(self) -> str:
        """The address as text."""
        return str(ipaddress.ip_address(self.address))

    def pack(self) -> list[Plain]:
        """The plain array."""
        return [self.address, self.port]

    @classmethod
    def unpack(cls, value: object) -> "Hint":
        """Reads what ``pack`` makes. Raises: Malformed."""
        return cls(*fields(value, bytes, int))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if len(self.address) == 16 else f"{self.host}:{self.port}"
