"""The daemon, as the command line sees it: HTTP over its socket, by the standard library alone, so that it starts fast.

Raises:
    UserError: from everything here; ``exit_code`` of the class says with which code the program ends (1 where there is none).
"""

import errno
import http.client
import json
import os
import pwd
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlencode

from p2psync.cli import exits
from p2psync.cli.say import command
from p2psync.store.places import SYSTEM_SOCKET, socket_address
from p2psync.values.errors import UserError

_CONNECT_S = 10
_READ_S = 30
_SILENCE_S = 60
"""A stream of events is never silent for so long: the daemon sends a sign of life every 15 seconds."""
_PATIENCE_S = 2
_PIECE = 1024 * 1024

_UNITS = (Path("/etc/systemd/system"), Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"))


class NoDaemon(UserError):
    """No p2psync daemon answers at “{socket}”. Start it with: {start}"""

    exit_code = exits.NO_DAEMON


class NoAnswer(UserError):
    """The p2psync daemon does not answer. Try again; if it stays so, restart it."""

    exit_code = exits.NO_DAEMON


class AnswerLost(UserError):
    """The p2psync daemon stopped before it answered. Look at “p2psync status” to see whether what you asked for was done."""

    exit_code = exits.NO_DAEMON


class CutShort(UserError):
    """The p2psync daemon stopped in the middle of the answer, and nothing was kept of it. Try again."""

    exit_code = exits.REFUSED


class NotADaemon(UserError):
    """What answers at “{socket}” does not speak as a p2psync daemon does. Choose the right socket with --socket."""

    exit_code = exits.NO_DAEMON


class Forbidden(UserError):
    """You may not use the p2psync daemon behind “{socket}”. Ask whoever looks after this machine to add you to the group “p2psync”,
    then log in again.
    """

    exit_code = exits.REFUSED


class ForeignDaemon(UserError):
    """At “{socket}” answers a program of the user “{user}”, not your p2psync daemon; nothing was sent to it. Choose the right
    socket with --socket.
    """

    exit_code = exits.REFUSED


class Refused(UserError):
    """{sentence}"""

    exit_code = exits.REFUSED


class Daemon:
    """The daemon behind ``socket``. Nothing is connected until something is asked.

    ``named`` are the options by which a person chose it on the command line: they are repeated where starting the daemon is explained.
    """

    def __init__(self, socket: Path, named: Sequence[str] = ()) -> None:
        self._socket = socket
        self._named = named

    def get(self, path: str, query: Mapping[str, str | None] | None = None) -> dict[str, Any]:
        """What the daemon says about ``path``; parts of the query that are None are left out."""
        return self._answer("GET", _address(path, query or {}), None, _READ_S)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Have the daemon do something, however long it takes."""
        return self._answer("POST", path, json.dumps(body).encode("ascii"), None)

    def download(self, path: str, query: Mapping[str, str | None], into: BinaryIO) -> None:
        """Write the bytes that are at ``path`` to a file. Raises OSError when that file cannot be written."""
        connection = self._connected(_READ_S)
        try:
            try:
                connection.request("GET", _address(path, query))
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as e:
                raise NoAnswer from e
            if response.status != 200 or response.getheader("Content-Type") != "application/octet-stream" or response.length is None:
                self._parsed(response)
                raise NotADaemon(socket=self._socket)
            while response.length:
                into.write(_piece(response))
        finally:
            connection.close()

    def events(self) -> Iterator[None]:
        """One item for every change, the first at once; ends when the daemon does."""
        connection = self._connected(_SILENCE_S)
        try:
            connection.request("GET", "/v1/events", headers={"Accept": "text/event-stream"})
            response = connection.getresponse()
            if response.status != 200:
                self._parsed(response)
            while line := response.readline():
                if line.startswith(b"data:"):
                    yield None
        except (OSError, http.client.HTTPException):
            return
        finally:
            connection.close()

    def _answer(self, method: str, address: str, body: bytes | None, limit_s: float | None) -> dict[str, Any]:
        connection = self._connected(limit_s)
        try:
            try:
                connection.request(method, address, body, {"Content-Type": "application/json"} if body is not None else {})
            except BrokenPipeError:
                pass  # The daemon answered before it had read everything; what it said is there to be read.
            if limit_s is None:
                _be_patient(connection.sock)
            return self._parsed(connection.getresponse())
        except (OSError, http.client.HTTPException) as e:
            raise (NoAnswer if body is None else AnswerLost) from e
        finally:
            connection.close()

    def _connected(self, limit_s: float | None) -> "_Connection":
        connection = _Connection(self._socket, limit_s)
        try:
            connection.connect()
        except PermissionError:
            raise Forbidden(socket=self._socket) from None
        except OSError as e:
            if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED, errno.EAGAIN, errno.ENOTSOCK) or isinstance(e, TimeoutError):
                raise self._nobody() from None
            raise NotADaemon(socket=self._socket) from e
        return connection

    def _parsed(self, response: http.client.HTTPResponse) -> dict[str, Any]:
        try:
            answer = json.loads(response.read())
        except (ValueError, RecursionError):
            raise NotADaemon(socket=self._socket) from None
        if response.status >= 400 and isinstance(answer, dict):
            error = answer.get("error")
            sentence = error.get("message") if isinstance(error, dict) else None
            raise Refused(sentence=sentence or f"The daemon refused ({response.status}).")
        if response.status != 200 or not isinstance(answer, dict):
            raise NotADaemon(socket=self._socket)
        return cast("dict[str, Any]", answer)

    def _nobody(self) -> NoDaemon:
        if not self._named and any((folder / "p2psync.service").exists() for folder in _UNITS):
            return NoDaemon(socket=SYSTEM_SOCKET, start="sudo systemctl start p2psync")
        return NoDaemon(socket=self._socket, start=command("run", *self._named))


class _Connection(http.client.HTTPConnection):
    """``limit_s`` bounds every wait; None waits as long as the daemon lives."""

    def __init__(self, path: Path, limit_s: float | None) -> None:
        super().__init__("localhost")
        self._path = path
        self._limit_s = limit_s

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(_CONNECT_S)
            with socket_address(self._path) as address:
                sock.connect(address)
            _check_server(sock, self._path)
            sock.settimeout(self._limit_s)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


def _check_server(sock: socket.socket, path: Path) -> None:
    """Tickets are sent through this socket: to nobody but the own user's daemon, root's, or the system service."""
    _, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid in (os.getuid(), 0) or os.getuid() == 0 or path == SYSTEM_SOCKET:
        return
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    if user != "p2psync":
        raise ForeignDaemon(socket=path, user=user)


def _piece(response: http.client.HTTPResponse) -> bytes:
    try:
        if piece := response.read(min(_PIECE, response.length or 0)):
            return piece
    except (OSError, http.client.HTTPException) as e:
        raise CutShort from e
    raise CutShort


def _be_patient(sock: socket.socket) -> None:
    """On a terminal, show that something is being done until the daemon answers."""
    if not sys.stderr.isatty():
        return
    began = time.monotonic()
    shown = ""
    while not select.select([sock], [], [], _PATIENCE_S if not shown else 1)[0]:
        shown = f"Working, {time.monotonic() - began:.0f} s (Ctrl-C stops waiting, not the work) "
        print(f"\r{shown}", end="", file=sys.stderr, flush=True)
    if shown:
        print("\r" + " " * len(shown) + "\r", end="", file=sys.stderr, flush=True)


def _address(path: str, query: Mapping[str, str | None]) -> str:
    said = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(said, errors='surrogateescape')}" if said else path
