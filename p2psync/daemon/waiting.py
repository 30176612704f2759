"""“p2psync wait”: until this machine and everybody who is online hold the same versions, or on whom and on what it still waits."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import trio

from p2psync.daemon.status import awaited, behind, told_of
from p2psync.engine.attention import ORDER, THIS_MACHINE
from p2psync.engine.concerns import told

if TYPE_CHECKING:
    from p2psync.daemon.mandate import Mandate
    from p2psync.daemon.office import Office
    from p2psync.values.names import DeviceId

MEETING_S = 10.0
"""Two machines that have just met speak of every mandate they share within this time, or of none that the other still has."""
_AT_MOST = 20
"""So many things that are waited for are told."""


async def wait(office: "Office", asked: "Mandate | None", timeout_s: float) -> dict[str, Any]:
    """Return when this machine and every online participant hold the same versions, of one mandate or of all."""
    with trio.move_on_after(max(timeout_s, 0)):
        await office.ready.wait()
        for mandate in _asked_for(office, asked):
            mandate.rescan()
        await until(office, lambda: not _closed(office, asked) and all(_agreed(office, mandate) for mandate in _asked_for(office, asked)))
        return {"agreed": True, "waiting_for": [], "waiting": []}
    missing = [] if office.ready.is_set() else [told("starting")]
    missing += _closed(office, asked)
    missing += [one for mandate in _asked_for(office, asked) for one in _missing(office, mandate)]
    shown = missing[:_AT_MOST]
    return {"agreed": False, "waiting_for": [one["reason"] for one in shown], "waiting": shown}


async def until(office: "Office", condition: Callable[[], bool]) -> None:
    """Wait until something is so, looking again whenever something may have changed."""
    with office.news.reading() as reader:
        while not condition():
            with trio.move_on_after(0.5):
                await reader.next()


def _asked_for(office: "Office", asked: "Mandate | None") -> "list[Mandate]":
    return list(office.mandates.values()) if asked is None else [asked]


def _closed(office: "Office", asked: "Mandate | None") -> list[dict[str, Any]]:
    """Of what no machine can agree because it could not be opened here; nothing when one mandate is asked for, which is open."""
    return [] if asked is not None else [one for key in office.problems if key.startswith("open ") for one in _problem(office, key)]


def _problem(office: "Office", key: str) -> list[dict[str, Any]]:
    error = office.problems.get(key)
    if error is None:
        return []
    row = {"code": error.code, "reason": error.cause, "machine": THIS_MACHINE, "action": error.action, "commands": []}
    return [row | {"since": office.problems.since(key)}]


def _agreed(office: "Office", mandate: "Mandate") -> bool:
    if mandate.books.me is None or not mandate.agrees_here or _meeting(office, mandate):
        return False
    return all(mandate.reckoning.in_sync(conversation) for conversation in mandate.conversations)


def _meeting(office: "Office", mandate: "Mandate") -> "list[DeviceId]":
    """The participants that are online and have not begun to speak of this mandate: it takes them a moment."""
    talking = {conversation.device for conversation in mandate.conversations}
    soon = {device for device, peer in office.links.items() if trio.current_time() - peer.since < MEETING_S}
    return [device for device in mandate.books.roster.members() if device in soon and device not in talking]


def _missing(office: "Office", mandate: "Mandate") -> list[dict[str, Any]]:
    """Why the machines do not agree about a mandate yet: on whom it waits, and on what."""
    name = mandate.books.name
    found = [told("just-come", machine=mandate.machine(device), mandate=name) for device in _meeting(office, mandate)]
    found += _problem(office, f"mandate {mandate.id.hex()}")
    if mandate.books.me is None:
        found.append(told("untold", machine="another machine", mandate=name))
    found += list(_paths(mandate))
    found += [behind(mandate, c.device, c, None) for c in mandate.conversations if not mandate.reckoning.in_sync(c)]
    if not found and not mandate.idle:
        found.append(told("looking", mandate=name))
    return [{"mandate": name, "name": None, **one} for one in found]


def _paths(mandate: "Mandate") -> Iterator[dict[str, Any]]:
    """The paths by which this machine itself is behind."""
    locations = {name.text: location for name, location in mandate.books.locations().items()}
    for shown, why in sorted(mandate.attention.items(), key=lambda pair: ORDER.index(pair[1].state)):
        if mandate.reckoning.is_behind(shown):
            yield {"name": shown, **told_of(mandate, shown, awaited(mandate, shown, why), locations.get(shown.partition("/")[0]))}
