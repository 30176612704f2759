"""What each request on the status socket does. The words are the command line's; the sentences are for people."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from p2psync.daemon import attachments, checkup, choices, founding, members, status, telling, waiting
from p2psync.edge.http import Answer, Download, Reply, Request, Stream, refusal
from p2psync.values.errors import UserError
from p2psync.values.names import escaped

if TYPE_CHECKING:
    from p2psync.daemon.mandate import Mandate
    from p2psync.daemon.office import Office


EVENTS_S = 0.05
"""Between two events at least: a watcher asks for the status after each."""
STARTING_S = 5.0
"""So long a request waits for the mandates to be opened; the status does not wait."""


class UnknownMandate(UserError):
    """There is no mandate “{name}” on this machine. “p2psync mandates” lists those there are."""


class AmbiguousMandate(UserError):
    """“{name}” could be {first} or {second}. Give the whole name, or more of the id."""


class BadBody(UserError):
    """The request lacks “{field}”, or it is not {kind}. See docs/status-api.md for what each request takes."""


_LONGEST_WAIT_S = 10**9


class Control:
    """Answers the requests to one daemon."""

    def __init__(self, office: "Office") -> None:
        self._office = office
        self._reads: dict[str, Callable[[Request], Awaitable[Answer]]] = {
            "/v1/status": self._status,
            "/v1/mandates": self._mandates,
            "/v1/participants": self._participants,
            "/v1/conflicts": self._conflicts,
            "/v1/history": self._history,
            "/v1/content": self._content,
            "/v1/why": self._why,
            "/v1/doctor": self._doctor,
            "/v1/events": self._events,
            "/metrics": self._metrics,
        }
        self._acts: dict[str, Callable[[Request], Awaitable[dict[str, Any]]]] = {
            "/v1/create": self._create,
            "/v1/attach": self._attach,
            "/v1/detach": self._detach,
            "/v1/share": self._share,
            "/v1/invite": self._invite,
            "/v1/ticket": self._ticket,
            "/v1/subscribe": self._subscribe,
            "/v1/promote": self._promote,
            "/v1/resolve": self._resolve,
            "/v1/restore": self._restore,
            "/v1/confirm": self._confirm,
            "/v1/wait": self._wait,
        }

    async def handle(self, request: Request) -> Answer:
        """The answer to one request.

        Raises:
            P2psyncError: refused, with the sentence.
        """
        read, act = self._reads.get(request.path), self._acts.get(request.path)
        if request.path not in ("/v1/status", "/v1/events", "/v1/wait"):
            with trio.move_on_after(STARTING_S):
                await self._office.ready.wait()
        if request.method == "GET" and read is not None:
            return await read(request)
        if request.method == "POST" and act is not None:
            return Reply(200, await act(request))
        if read is not None or act is not None:
            return refusal(405, "no-such-method", f"{request.path} takes {'GET' if read else 'POST'}.")
        return refusal(404, "no-such-path", f"There is nothing at {escaped(request.path)}.")

    # ---- which mandate

    def _mandate(self, name: str) -> "Mandate":
        """The mandate of that name, or whose id begins so. Raises: UnknownMandate, AmbiguousMandate."""
        mandates = list(self._office.mandates.values())
        found = [m for m in mandates if m.books.name == name] or [m for m in mandates if m.books.name.casefold() == name.casefold()]
        if not found and len(name) >= 4:
            found = [m for m in mandates if m.id.hex().startswith(name.lower())]
        if not found:
            raise UnknownMandate(name=escaped(name))
        if len(found) > 1:
            first, second = (f"“{m.books.name}” ({m.id.hex()[:8]})" for m in found[:2])
            raise AmbiguousMandate(name=escaped(name), first=first, second=second)
        return found[0]

    def _asked(self, request: Request) -> "Mandate | None":
        name = request.query.get("mandate")
        return None if name is None else self._mandate(name)

    def _of(self, request: Request) -> "Mandate":
        return self._mandate(_text(request, "mandate"))

    # ---- reading

    async def _status(self, request: Request) -> Reply:
        await status.ready_to_tell(self._office.mandates.values())
        return Reply(200, status.status(self._office, self._asked(request)))

    async def _mandates(self, request: Request) -> Reply:
        await status.ready_to_tell(self._office.mandates.values())
        rows = [status.of_mandate(self._office, mandate) for mandate in self._office.mandates.values()]
        shown = [{key: row[key] for key in ("id", "name", "state", "folder", "role", "summary")} for row in rows]
        return Reply(200, {"mandates": sorted(shown, key=lambda row: str(row["name"]).casefold())})

    async def _participants(self, request: Request) -> Reply:
        mandate = self._mandate(request.query.get("mandate", ""))
        return Reply(
            200, {"participants": status.participants(self._office, mandate), "tickets": members.open_tickets(self._office, mandate)}
        )

    async def _conflicts(self, request: Request) -> Reply:
        only = self._asked(request)
        mandates = [only] if only else list(self._office.mandates.values())
        found = [await mandate.in_thread(partial(choices.conflicts, self._office, mandate)) for mandate in mandates]
        return Reply(200, {"conflicts": [row for rows in found for row in rows]})

    async def _history(self, request: Request) -> Reply:
        mandate = self._mandate(request.query.get("mandate", ""))
        name = request.query.get("name") or None
        return Reply(200, {"versions": await mandate.in_thread(partial(choices.history, mandate, name))})

    async def _content(self, request: Request) -> Download:
        mandate = self._mandate(request.query.get("mandate", ""))
        return await choices.content(mandate, request.query.get("name", ""), request.query.get("version") or None)

    async def _why(self, request: Request) -> Reply:
        mandate = self._mandate(request.query.get("mandate", ""))
        return Reply(200, await telling.why(self._office, mandate, request.query.get("name", ""), "all" in request.query))

    async def _doctor(self, request: Request) -> Reply:
        return Reply(200, await checkup.checkup(self._office))

    async def _metrics(self, request: Request) -> Reply:
        await status.ready_to_tell(self._office.mandates.values())
        return Reply(200, status.metrics(self._office))

    async def _events(self, request: Request) -> Stream:
        return Stream(self._changes())

    async def _changes(self) -> AsyncGenerator[tuple[str, Any], None]:
        with self._office.news.reading() as reader:
            yield "changed", {"mandate": None}
            while True:
                mandate = await reader.next()
                yield "changed", {"mandate": mandate.hex() if mandate else None}
                await trio.sleep(EVENTS_S)

    # ---- acts

    async def _create(self, request: Request) -> dict[str, Any]:
        body = request.body
        folder = Path(body["folder"]) if isinstance(body.get("folder"), str) else None
        person = body["as"] if isinstance(body.get("as"), str) else None
        return await founding.create(self._office, _text(request, "name"), _paths(request), folder, person, request.caller)

    async def _attach(self, request: Request) -> dict[str, Any]:
        return await attachments.attach(self._office, self._of(request), _paths(request), request.caller.user)

    async def _detach(self, request: Request) -> dict[str, Any]:
        return await attachments.detach(self._office, self._of(request), _text(request, "name"), request.caller.user)

    async def _share(self, request: Request) -> dict[str, Any]:
        return await founding.share(self._office, self._of(request))

    async def _invite(self, request: Request) -> dict[str, Any]:
        expires = request.body.get("expires_s", 7 * 86400)
        if type(expires) is not int:
            raise BadBody(field="expires_s", kind="a number of seconds")
        return await members.invite(
            self._office, self._of(request), _text(request, "for"), str(request.body.get("role") or "editor"), expires
        )

    async def _ticket(self, request: Request) -> dict[str, Any]:
        return members.inspect(self._office, _text(request, "text"))

    async def _subscribe(self, request: Request) -> dict[str, Any]:
        folder, name = request.body.get("folder"), request.body.get("as")
        return await founding.subscribe(
            self._office,
            _text(request, "text"),
            Path(folder) if isinstance(folder, str) else None,
            name if isinstance(name, str) else None,
        )

    async def _promote(self, request: Request) -> dict[str, Any]:
        return await members.promote(self._of(request), _text(request, "for"), str(request.body.get("role") or "owner"))

    async def _resolve(self, request: Request) -> dict[str, Any]:
        return await choices.resolve(self._of(request), _text(request, "name"), _text(request, "keep"), request.caller.user)

    async def _restore(self, request: Request) -> dict[str, Any]:
        version = request.body.get("version")
        chosen = version if isinstance(version, str) else None
        return await choices.restore(self._of(request), _text(request, "name"), chosen, request.caller.user)

    async def _confirm(self, request: Request) -> dict[str, Any]:
        return await attachments.confirm(self._of(request), _text(request, "name"))

    async def _wait(self, request: Request) -> dict[str, Any]:
        name = request.body.get("mandate")
        mandate = self._mandate(name) if isinstance(name, str) else None
        timeout = request.body.get("timeout_s", 20)
        if not isinstance(timeout, int | float) or not 0 <= timeout <= _LONGEST_WAIT_S:
            raise BadBody(field="timeout_s", kind="a number of seconds")
        return await waiting.wait(self._office, mandate, float(timeout))


def _text(request: Request, field: str) -> str:
    value = request.body.get(field)
    if not isinstance(value, str):
        raise BadBody(field=field, kind="a text")
    return value


def _paths(request: Request) -> list[Path]:
    value = request.body.get("paths")
    if not isinstance(value, list) or not all(isinstance(path, str) and path.startswith("/") for path in value):
        raise BadBody(field="paths", kind="a list of whole paths")
    return [Path(path) for path in value]
