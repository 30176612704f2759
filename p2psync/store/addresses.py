"""Where members were last met: hints for whom to dial, tried like any other."""

import ipaddress
import sqlite3
from collections.abc import Iterable

from p2psync.values.names import DeviceId

_KEPT = 8


def met(db: sqlite3.Connection, device: DeviceId, now_ms: int) -> None:
    """This device was online at ``now_ms``."""
    db.execute("INSERT OR REPLACE INTO met VALUES (?,?)", (device, now_ms))


def last_met(db: sqlite3.Connection) -> dict[DeviceId, int]:
    """When each device was last online (ms since 1970)."""
    return {DeviceId(device): seen for device, seen in db.execute("SELECT device, seen_ms FROM met")}


def note(db: sqlite3.Connection, device: DeviceId, host: str, port: int, now_ms: int) -> None:
    """``device`` listens at ``host``:``port``."""
    db.execute("INSERT OR REPLACE INTO addresses VALUES (?,?,?,?)", (device, host, port, now_ms))
    db.execute(
        "DELETE FROM addresses WHERE device = ? AND (host, port) NOT IN"
        " (SELECT host, port FROM addresses WHERE device = ? ORDER BY seen_ms DESC LIMIT ?)",
        (device, device, _KEPT),
    )


def says(db: sqlite3.Connection, device: DeviceId, spots: Iterable[tuple[str, int]]) -> None:
    """``device`` says of itself that it listens there; whether it can be reached there is not known yet."""
    db.execute("DELETE FROM addresses WHERE device = ? AND seen_ms = 0", (device,))
    db.executemany("INSERT OR IGNORE INTO addresses VALUES (?,?,?,0)", ((device, host, port) for host, port in spots))


def usable(spots: Iterable[tuple[bytes, int]]) -> list[tuple[str, int]]:
    """What somebody says of where a device listens, as far as it is about addresses of a local network."""
    found = [(ipaddress.ip_address(address), port) for address, port in spots]
    return [(str(ip), port) for ip, port in found if (ip.is_private or ip.is_link_local) and not (ip.is_multicast or ip.is_unspecified)]


def of(db: sqlite3.Connection, device: DeviceId) -> list[tuple[str, int]]:
    """Where to try to reach ``device``, the latest first."""
    rows = db.execute("SELECT host, port FROM addresses WHERE device = ? ORDER BY seen_ms DESC LIMIT ?", (device, _KEPT))
    return [(host, port) for host, port in rows]


def devices(db: sqlite3.Connection) -> list[DeviceId]:
    """The devices of which an address is known."""
    return [DeviceId(device) for (device,) in db.execute("SELECT DISTINCT device FROM addresses")]


def packed(db: sqlite3.Connection, without: set[DeviceId]) -> tuple[tuple[DeviceId, tuple[tuple[bytes, int], ...]], ...]:
    """Where the other members were met by ourselves, as it is told to a peer."""
    found: dict[DeviceId, list[tuple[bytes, int]]] = {}
    for device, host, port in db.execute("SELECT device, host, port FROM addresses WHERE seen_ms > 0 ORDER BY seen_ms DESC LIMIT 1000"):
        if DeviceId(device) not in without and len(found.get(device, ())) < 4:
            found.setdefault(DeviceId(device), []).append((ipaddress.ip_address(host.partition("%")[0]).packed, port))
    return tuple((device, tuple(spots)) for device, spots in list(found.items())[:256])
