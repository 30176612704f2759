"""Does this machine answer? A question by mDNS, as any other machine might ask it, and a call of our own port. Both block.

The question comes from another port than 5353, so that the answer comes back to it alone (RFC 6762 §6.7).
"""

import socket
import struct
import time
from collections.abc import Iterable
from contextlib import suppress

from p2psync.edge.responder import SERVICE

_GROUP = ("224.0.0.251", 5353)
_PTR, _IN = 12, 1
_ANSWER = 9000


def asks(instance: str, addresses: Iterable[str], patience_s: float = 1.0) -> set[str]:
    """Those of our own IPv4 ``addresses`` on whose interface a question for p2psync machines is answered with ``instance``."""
    return {address for address in addresses if _is_answered(instance, address, patience_s)}


def _is_answered(instance: str, address: str, patience_s: float) -> bool:
    until = time.monotonic() + patience_s
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.bind((address, 0))
        asking.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
        asking.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        asking.sendto(_question(), _GROUP)
        while (left := until - time.monotonic()) > 0:
            asking.settimeout(left)
            if instance.encode() in asking.recv(_ANSWER):
                return True
    return False


def _question() -> bytes:
    labels = SERVICE.rstrip(".").split(".")
    name = b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"
    return struct.pack(">6H", 0x7032, 0, 1, 0, 0, 0) + name + struct.pack(">2H", _PTR, _IN)


def answers(addresses: Iterable[str], port: int, patience_s: float = 1.0) -> set[str]:
    """Those of our own ``addresses`` at which somebody takes connections on ``port``."""
    found = set()
    for address in addresses:
        with suppress(OSError), socket.create_connection((address, port), patience_s):
            found.add(address)
    return found
