"""What a daemon is started with: where its state and its socket are, where it listens, whom it looks for."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from p2psync.engine.retention import DEFAULT, Policy
from p2psync.store.places import default_home, default_socket, default_witness
from p2psync.values.errors import UserError
from p2psync.values.names import escaped

DEFAULT_PORT = 22088
"""So that one firewall rule serves a whole office."""


class BadAddress(UserError):
    """“{text}” is no {what}. Write it as {example}."""


@dataclass(frozen=True)
class Config:
    """The settings of one daemon.

    ``listen`` is (address or None for the addresses of the interfaces, port; port 0: any free one); ``interfaces`` are names, None for
    every real LAN interface; ``peers`` are (host, port); ``folders`` is where the folders of new mandates go; ``group`` may use the socket;
    ``keep`` is how long old versions are kept; ``witness`` is the folder outside ``home`` that tells when that one is a restored copy.
    """

    home: Path
    socket: Path
    listen: tuple[str | None, int]
    interfaces: tuple[str, ...] | None
    peers: tuple[tuple[str, int], ...]
    mdns: bool
    folders: Path
    group: str | None = None
    keep: Policy = DEFAULT
    witness: Path | None = None

    @property
    def only_host(self) -> str | None:
        """The one address to listen at; None when it is those of the interfaces."""
        host, _ = self.listen
        return None if host is None or ipaddress.ip_address(host).is_unspecified else host

    @classmethod
    def resolve(
        cls,
        environ: Mapping[str, str],
        *,
        home: Path | None = None,
        socket: Path | None = None,
        listen: str | None = None,
        interfaces: tuple[str, ...] | None = None,
        peers: tuple[str, ...] = (),
        mdns: bool = True,
        keep: str | None = None,
    ) -> "Config":
        """The settings that flags and environment amount to.

        Raises:
            BadAddress: --listen or --peer cannot be understood. BadPolicy: --keep or P2PSYNC_KEEP cannot.
        """
        return cls(
            home=home or default_home(environ),
            socket=socket or default_socket(environ, home),
            listen=_listen(listen) if listen else (None, DEFAULT_PORT),
            interfaces=interfaces,
            peers=tuple(_peer(peer) for peer in peers),
            mdns=mdns,
            folders=Path(os.path.abspath(environ.get("P2PSYNC_FOLDERS") or Path(environ.get("HOME") or "/") / "p2psync")),
            group=environ.get("P2PSYNC_GROUP") or None,
            keep=Policy.parse(keep or environ.get("P2PSYNC_KEEP") or "30d,1y,10y"),
            witness=default_witness(environ, home),
        )


def _listen(text: str) -> tuple[str | None, int]:
    host, port = _split(text, "address to listen at", "192.0.2.7:22088 or :22088", least=0)
    if not host:
        return None, port
    try:
        return str(ipaddress.ip_address(host)), port
    except ValueError:
        raise BadAddress(text=escaped(text), what="address to listen at", example="192.0.2.7:22088 or :22088") from None


def _peer(text: str) -> tuple[str, int]:
    host, port = _split(text, "address of a machine", "192.0.2.7:22088", least=1)
    if not host:
        raise BadAddress(text=escaped(text), what="address of a machine", example="192.0.2.7:22088")
    return host, port


def _split(text: str, what: str, example: str, *, least: int) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdecimal() or not least <= int(port) < 65536:
        raise BadAddress(text=escaped(text), what=what, example=example)
    return host.removeprefix("[").removesuffix("]"), int(port)
