"""The status socket: HTTP/1.1 with JSON over a Unix socket, for the command line, the local page and ``curl --unix-socket``.

Reading is for whoever may open the socket, acts are for the daemon's own user, root and the members of the socket's group (by the
kernel's word, see ``caller``). Nothing here knows what a mandate is: every request goes to one handler, and what that raises becomes
the answer. A client, however slow, broken or stuck, costs a bounded amount and never holds up a stop.
"""

import contextlib
import errno
import grp
import logging
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio

from p2psync.edge.caller import Caller, caller_of, groups_of, may_act, named
from p2psync.edge.http import Answer, BadRequest, ClientGone, Conversation, Download, Handler, Limits, Request, Stream, refusal
from p2psync.store.places import socket_address
from p2psync.values.errors import MandateError, MandateHalted, P2psyncError, UserError

log = logging.getLogger(__name__)

READING_POSTS = frozenset({"/v1/ticket", "/v1/wait"})
"""These are posted because of what they carry, and change nothing."""

_BACKLOG = 64


class SocketInUse(UserError):
    """Another p2psync daemon answers at “{path}”. Stop it, or choose another place with --socket."""


class SocketPlaceTaken(UserError):
    """“{path}” is something else than a socket, and is left alone. Choose another place with --socket."""


class SocketImpossible(UserError):
    """The status socket “{path}” cannot be made: {why}. Choose another place with --socket."""


class NoSuchGroup(UserError):
    """This machine has no group “{group}”, whose members were to use the daemon. Create it, or start without a group."""


class NoSuchMethod(BadRequest):
    """Only GET and POST are answered here."""

    status = 405


class NotAllowed(BadRequest):
    """You may look, but not change anything: the p2psync daemon of this machine obeys {who} only."""

    status = 403


async def serve(
    path: Path,
    handler: Handler,
    *,
    group: str | None = None,
    mode: int | None = None,
    limits: Limits | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer at ``path`` until cancelled; the socket file is gone afterwards, whatever its clients do.

    ``group`` names the group that may open the socket and act (mode 0660; without one 0600). ``handler`` may raise any error of ours: it
    becomes a refusal with its code and sentence; anything else is logged, and the client told so. A handler of a request that only reads
    is cancelled when its client goes; an act is carried through. The caller holds the lock of the home.

    Raises:
        UserError: the socket cannot be made, with the reason.
    """
    gid = _gid(group) if group else None
    with _listening(path, gid, mode or (0o660 if group else 0o600)) as listener:
        task_status.started()
        await trio.serve_listeners(_Door(handler, group, gid, limits or Limits()).client, [listener])


class _Door:
    """Lets a bounded number of clients in, and sends each one's request to the handler."""

    def __init__(self, handler: Handler, group: str | None, gid: int | None, limits: Limits) -> None:
        self._handler = handler
        self._group = group
        self._gid = gid
        self._limits = limits
        self._inside = 0
        self._streams = 0

    async def client(self, stream: trio.SocketStream) -> None:
        """One connection, from its first to its last byte. Raises nothing."""
        self._inside += 1
        talk = Conversation(stream, self._limits)
        try:
            if self._inside > self._limits.clients:
                await talk.answer(refusal(503, "busy", f"The daemon talks to {self._limits.clients} programs already. Try again."))
            else:
                await self._serve(talk, caller_of(stream))
        except ClientGone:
            pass
        except Exception:
            log.exception("a request on the status socket failed")
        finally:
            self._inside -= 1
            await trio.aclose_forcefully(stream)

    async def _serve(self, talk: Conversation, caller: Caller) -> None:
        try:
            request = await self._request(talk, caller)
        except BadRequest as e:
            await talk.answer(refusal(e.status, e.code, str(e)))
            return
        answer = await (self._judge(request) if _acts(request) else self._judge_while_there(request, talk))
        if isinstance(answer, Stream):
            await self._stream(talk, answer)
        elif isinstance(answer, Download):
            await talk.download(answer)
        elif answer:
            await talk.answer(answer)

    async def _request(self, talk: Conversation, caller: Caller) -> Request:
        """What the client asks for; whether it may is decided before its body is read."""
        method, path, query = await talk.head()
        request = Request(method, path, query, {}, caller)
        if method not in ("GET", "POST"):
            raise NoSuchMethod
        if _acts(request):
            if not await self._may_act(caller):
                raise NotAllowed(who=f"members of the group “{self._group}”" if self._group else "the user who runs it")
            request = replace(request, caller=await trio.to_thread.run_sync(named, caller))
        return replace(request, body=await talk.body())

    async def _stream(self, talk: Conversation, stream: Stream) -> None:
        if self._streams >= self._limits.streams:
            await stream.events.aclose()
            await talk.answer(refusal(503, "busy", "Too many programs listen to the daemon already. Close one of them."))
            return
        self._streams += 1
        try:
            await talk.stream(stream.events)
        finally:
            self._streams -= 1

    async def _judge_while_there(self, request: Request, talk: Conversation) -> Answer | None:
        answer = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_gone, talk, nursery.cancel_scope)
            answer = await self._judge(request)
            nursery.cancel_scope.cancel()
        return answer

    async def _judge(self, request: Request) -> Answer:
        try:
            return await self._handler(request)
        except (MandateError, MandateHalted) as e:
            return refusal(409, e.code, str(e))
        except P2psyncError as e:
            return refusal(400, e.code, str(e))
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return refusal(500, "internal", "Something went wrong inside the daemon; its log says what. Nothing else is affected.")

    async def _may_act(self, caller: Caller) -> bool:
        allowed = partial(may_act, caller.uid, own=os.geteuid(), group=self._gid)
        return allowed(groups=()) or allowed(groups=await trio.to_thread.run_sync(groups_of, caller.uid))


def _acts(request: Request) -> bool:
    return request.method != "GET" and request.path not in READING_POSTS


async def _cancel_when_gone(talk: Conversation, scope: trio.CancelScope) -> None:
    await talk.gone()
    scope.cancel()


def _gid(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise NoSuchGroup(group=group) from None


@contextlib.contextmanager
def _listening(path: Path, gid: int | None, mode: int) -> Iterator[trio.SocketListener]:
    """A listener at ``path``, complete before it has that name, and without it again afterwards."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_free(path)
        sock = _bound(path, gid, mode)
    except OSError as e:
        raise SocketImpossible(path=path, why=e.strerror or str(e)) from None
    identity = _identity(path)
    try:
        yield trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    finally:
        sock.close()
        if _identity(path) == identity:
            path.unlink(missing_ok=True)


def _check_free(path: Path) -> None:
    """Refuse when ``path`` belongs to somebody alive. RACE: a daemon of another home that starts in the same instant loses its socket."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SocketPlaceTaken(path=path)
        with socket.socket(socket.AF_UNIX) as probe, socket_address(path) as address:
            probe.setblocking(False)
            probe.connect(address)
    except FileNotFoundError:
        return
    except OSError as e:
        if e.errno == errno.ECONNREFUSED:
            return
        if e.errno != errno.EAGAIN:
            raise
    raise SocketInUse(path=path)


def _bound(path: Path, gid: int | None, mode: int) -> socket.socket:
    """A listening socket; nobody else can open it before its group and mode are right and it takes its name."""
    beginning = path.with_name(f".{path.name}.{os.getpid()}")
    beginning.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)
    try:
        with socket_address(beginning) as address:
            sock.bind(address)
        sock.listen(_BACKLOG)
        if gid is not None:
            os.chown(beginning, -1, gid)
        beginning.chmod(mode)
        beginning.rename(path)
    except BaseException:
        sock.close()
        beginning.unlink(missing_ok=True)
        raise
    finally:
        os.umask(umask)
    return sock


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
