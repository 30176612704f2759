"""One connection to the status socket: one request, one answer, then it is closed.

A connection to a Unix socket costs 20 microseconds, so nothing is kept open in between and an idle client holds no place.
Every wait has an end: for the request, for the answer to be taken, and, while something is only being read, for a client that has gone.
"""

import contextlib
import json
import select
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast
from urllib.parse import parse_qsl

import h11
import trio

from p2psync.edge.caller import Caller
from p2psync.values.errors import PeerError

_JSON = "application/json"
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
"""The version is that of the Prometheus text format, which is all the plain text there is."""

_BYTES = "application/octet-stream"

_READ = 16 * 1024
_MAX_HEAD = 16 * 1024
_MAX_FIELDS = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may cost. Seconds, bytes, connections."""

    clients: int = 16
    streams: int = 12
    """Of the clients: so many may sit and listen, so that forgotten pages never lock out the command line."""
    body: int = 1024 * 1024
    request_s: float = 10
    """From the connection to the last byte of the request; only programs of this machine connect, and they have nothing to wait for."""
    send_s: float = 10
    heartbeat_s: float = 15


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks. ``path`` is without the query; ``query`` is decoded; ``body`` is {} where there is none."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Mapping[str, Any]
    caller: Caller


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: a dict goes out as JSON, a str as plain text."""

    status: int
    body: Mapping[str, Any] | str


class Events(Protocol):
    """What an async generator of (event, data) is, and a trio receive channel too."""

    def __aiter__(self) -> AsyncIterator[tuple[str, Any]]: ...
    def aclose(self) -> Awaitable[object]:
        """Let go of what the events come from."""
        ...


@dataclass(frozen=True, slots=True)
class Stream:
    """Server-sent events, data as JSON. They are closed when the client goes or the daemon stops."""

    events: Events


class Pieces(Protocol):
    """What an async generator of bytes is."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    def aclose(self) -> Awaitable[object]:
        """Let go of what the pieces come from."""
        ...


@dataclass(frozen=True, slots=True)
class Download:
    """A file of ``size`` bytes. When the pieces end before that, the connection is cut, and the client sees that it lacks something."""

    size: int
    pieces: Pieces


Answer: TypeAlias = Reply | Stream | Download
Handler: TypeAlias = Callable[[Request], Awaitable[Answer]]


class BadRequest(PeerError):
    """The request cannot be understood: {why}."""

    status = 400


class RequestTooSlow(BadRequest):
    """The request did not arrive within {seconds} seconds."""

    status = 408


class BodyTooLarge(BadRequest):
    """The request is longer than the {limit} bytes that are allowed."""

    status = 413


class HeadTooLarge(BadRequest):
    """The head of the request is longer than the {limit} bytes that are allowed."""

    status = 431


class ClientGone(PeerError):
    """The client went away."""


def refusal(status: int, code: str, message: str) -> Reply:
    """The answer that says no: ``message`` is a sentence for a person."""
    return Reply(status, {"error": {"code": code, "message": message}})


class Conversation:
    """The server's half of one connection. The methods are called in the order in which they stand here.

    Raises:
        BadRequest: from ``head`` and ``body``; an answer can still be sent.
        ClientGone: from every method, when the client went or took too long over the answer.
    """

    def __init__(self, stream: trio.SocketStream, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        self._head_only = False
        self._sending = trio.Lock()
        self._until = trio.current_time() + limits.request_s

    async def head(self) -> tuple[str, str, dict[str, str]]:
        """The method, the path and the query of the request."""
        event = await self._next()
        if not isinstance(event, h11.Request):
            raise ClientGone
        self._head_only = event.method == b"HEAD"
        announced = dict(event.headers).get(b"content-length", b"0")
        if int(announced) > self._limits.body:
            raise BodyTooLarge(limit=self._limits.body)
        return event.method.decode("ascii"), *_target(event.target)

    async def body(self) -> dict[str, Any]:
        """The JSON object that the request carries; {} when it carries nothing."""
        if self._http.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        data = bytearray()
        while isinstance(event := await self._next(), h11.Data):
            data += event.data
            if len(data) > self._limits.body:
                raise BodyTooLarge(limit=self._limits.body)
        if not isinstance(event, h11.EndOfMessage):
            raise ClientGone
        return _json_object(bytes(data)) if data else {}

    async def gone(self) -> None:
        """Return when the client has gone. One that has only said its last word (a half-closed connection) still wants the answer."""
        try:
            more = await self._stream.receive_some(1)
        except trio.BrokenResourceError:
            return
        if more or not _hung_up(self._stream.socket.fileno()):
            await trio.sleep_forever()

    async def answer(self, reply: Reply) -> None:
        """Send ``reply``. Nothing is sent when an answer has begun already."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
        payload = text.encode("utf-8", "backslashreplace")
        kind = _TEXT if isinstance(reply.body, str) else _JSON
        start = h11.Response(status_code=reply.status, headers=_headers(kind, ("Content-Length", str(len(payload)))))
        await self._send(start, *([] if self._head_only else [h11.Data(data=payload)]), h11.EndOfMessage())

    async def stream(self, events: Events) -> None:
        """Send ``events`` as they come, and a comment now and then, until the client goes or they end."""
        try:
            async with contextlib.aclosing(events), trio.open_nursery() as nursery:
                await self._send(h11.Response(status_code=200, headers=_headers("text/event-stream")))
                nursery.start_soon(self._heartbeat)
                nursery.start_soon(self._stop_when_gone, nursery.cancel_scope)
                async for name, data in events:
                    await self._send(h11.Data(data=f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()))
                await self._send(h11.EndOfMessage())
                nursery.cancel_scope.cancel()
        except* ClientGone:
            pass

    async def download(self, file: Download) -> None:
        """Send a file, as fast as the client takes it."""
        async with contextlib.aclosing(file.pieces):
            await self._send(h11.Response(status_code=200, headers=_headers(_BYTES, ("Content-Length", str(file.size)))))
            left = file.size
            async for piece in file.pieces:
                left -= len(piece)
                await self._send(h11.Data(data=piece))
            if left == 0:
                await self._send(h11.EndOfMessage())

    async def _heartbeat(self) -> None:
        while True:
            await trio.sleep(self._limits.heartbeat_s)
            await self._send(h11.Data(data=b": still here\n\n"))

    async def _stop_when_gone(self, scope: trio.CancelScope) -> None:
        await self.gone()
        scope.cancel()

    async def _next(self) -> h11.Event | type[h11.PAUSED]:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                with trio.fail_at(self._until):
                    self._http.receive_data(await self._stream.receive_some(_READ))
        except trio.TooSlowError:
            raise RequestTooSlow(seconds=self._limits.request_s) from None
        except h11.RemoteProtocolError as e:
            raise _fault(e) from None
        except trio.BrokenResourceError:
            raise ClientGone from None
        return cast("h11.Event | type[h11.PAUSED]", event)

    async def _send(self, *events: h11.Event) -> None:
        data = b"".join(self._http.send(event) or b"" for event in events)
        try:
            with trio.fail_after(self._limits.send_s):
                async with self._sending:
                    await self._stream.send_all(data)
        except (trio.TooSlowError, trio.BrokenResourceError):
            raise ClientGone from None


def _target(target: bytes) -> tuple[str, dict[str, str]]:
    try:
        path, _, query = target.decode("ascii").partition("?")
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise BadRequest(why="its address is not well formed") from None
    if not path.startswith("/") or len(dict(pairs)) != len(pairs):
        raise BadRequest(why="its address is not well formed")
    return path, dict(pairs)


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise BadRequest(why="its body is not JSON") from None
    if not isinstance(value, dict):
        raise BadRequest(why="its body is not a JSON object")
    return value


def _no_number(name: str) -> None:
    raise ValueError(name)


def _fault(error: h11.RemoteProtocolError) -> BadRequest:
    return HeadTooLarge(limit=_MAX_HEAD) if error.error_status_hint == 431 else BadRequest(why="it is not HTTP/1.1")


def _headers(kind: str, *more: tuple[str, str]) -> list[tuple[str, str]]:
    return [("Content-Type", kind), ("Cache-Control", "no-store"), ("Connection", "close"), *more]


def _hung_up(fileno: int) -> bool:
    """True when the other end is closed altogether; a half-closed one can still be written to."""
    poll = select.poll()
    poll.register(fileno, 0)
    return bool(poll.poll(0))
