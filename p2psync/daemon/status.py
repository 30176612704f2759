"""What the status socket tells: plain dictionaries in the shape of docs/status-api.md, from memory and a few reads of the ledger.

It never waits for a round: it answers whatever the mandates are doing.
"""

import heapq
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import trio

from p2psync import __version__
from p2psync.engine.attention import ORDER, Attention
from p2psync.store import addresses, resuming
from p2psync.store.locations import Location
from p2psync.values.digest import fingerprint
from p2psync.values.entry import Op
from p2psync.values.names import DeviceId, RelPath

if TYPE_CHECKING:
    from p2psync.daemon.conversation import Conversation
    from p2psync.daemon.mandate import Mandate
    from p2psync.daemon.office import Office

CLOCK_OFF_MS = 5 * 60 * 1000
"""Clocks that differ by more are worth a word, though nothing depends on them."""
MOST_NOTICES = 100
"""Paths of one attachment that the status tells of one by one."""
COUNTING_S = 0.05
"""A status waits so long for the figures of a journal that has just grown; then it tells those it has."""


async def ready_to_tell(mandates: "Iterable[Mandate]") -> None:
    """Let what a status tells be up to date, as far as that takes no time."""
    with trio.move_on_after(COUNTING_S):
        for mandate in mandates:
            await mandate.counted()


def status(office: "Office", only: "Mandate | None" = None) -> dict[str, Any]:
    """The whole status, or that of one mandate."""
    mandates = [only] if only is not None else list(office.mandates.values())
    return {
        "device": {"id": office.device.hex(), "name": office.device_name},
        "version": __version__,
        "port": office.port,
        "problems": problems(office),
        "mandates": [of_mandate(office, mandate) for mandate in sorted(mandates, key=lambda mandate: mandate.books.name.casefold())],
    }


def problems(office: "Office") -> list[dict[str, Any]]:
    """What troubles the daemon itself: code, sentence and next action (the sentence says it)."""
    found = [{"code": error.code, "message": str(error), "action": ""} for error in office.problems.values()]
    found += [{"code": e.code, "message": str(e), "action": ""} for e in office.refusals.values()]
    for mandate in office.mandates.values():
        asked = resuming.questions(mandate.books)
        found += [{"code": e.code, "message": str(e), "action": ""} for e in (*mandate.troubles.values(), *asked)]
        for contested in mandate.books.roster.contested().values():
            message = (
                f"A ticket of “{mandate.books.name}” was used on {len(contested)} machines; none of them takes part until an owner decides."
            )
            found.append({"code": "ticket-contested", "message": message, "action": "Invite the right person with a new ticket."})
    for joining in office.joinings.values():
        message = f"The ticket for “{joining.ticket.name}” is in use; no machine of that mandate has answered yet."
        action = f"Switch on a machine that takes part, for instance that of {joining.ticket.issuer_name}; it goes on by itself."
        found.append({"code": "joining", "message": message, "action": action})
    for device, peer in office.links.items():
        if abs(peer.clock_off_ms) > CLOCK_OFF_MS:
            message = f"The clocks of this machine and of {office.machine(device)} differ by {abs(peer.clock_off_ms) // 60_000} minutes."
            found.append({"code": "clock-differs", "message": message, "action": "Set the right time on the one that is wrong."})
        if peer.turns.load.resting:
            message = f"{office.machine(device)} is there, but has not answered for a minute; what it has is asked of others."
            found.append({"code": "no-answer", "message": message, "action": "See whether that machine has stopped, or its disk is busy."})
    return found


def of_mandate(office: "Office", mandate: "Mandate") -> dict[str, Any]:
    """One mandate."""
    books = mandate.books
    notices = _by_attachment(mandate)
    attachments = [_attachment(mandate, name, op, notices.get(name.text, {})) for name, op in sorted(mandate.figures.attachments.items())]
    people = participants(office, mandate)
    files, size = mandate.fetcher.missing
    behind = [c.held for c in mandate.conversations if c.held is not None and not mandate.in_sync(c)]
    conflicts = mandate.figures.conflicts
    return {
        "id": mandate.id.hex(),
        "name": books.name,
        "state": "shared" if books.shared else "local",
        "folder": str(books.folder),
        "role": books.me.role.name.lower() if books.me else None,
        "summary": _summary(books.shared, attachments, people, conflicts),
        "attachments": attachments,
        "participants": people,
        "conflicts": conflicts,
        "incoming": {"files": files, "bytes": size},
        "outgoing": {"files": sum(held.files for held in behind), "bytes": sum(held.bytes for held in behind)},
        "busy": not mandate.idle,
        "history_bytes": books.vault.size,
    }


_WORDS: dict[str, str] = {
    "halted": "halted",
    "error": "with a problem",
    "missing": "not found",
    "waiting": "waiting",
    "receiving": "coming in",
    "sending": "on the way to the others",
}


def _summary(shared: bool, attachments: list[dict[str, Any]], people: list[dict[str, Any]], conflicts: int) -> str:
    waiting = [a for a in attachments if a["state"] not in ("synced", "conflict")]
    if conflicts:
        return "1 file in conflict" if conflicts == 1 else f"{conflicts} files in conflict"
    if waiting:
        worst = min((a["state"] for a in waiting), key=ORDER.index)
        return f"{sum(a['state'] == worst for a in waiting)} of {len(attachments)} {_WORDS[worst]}"
    others = [p for p in people if not p["self"]]
    if not shared:
        return "not shared yet"
    if not people:
        return "no other machine has told this one yet what is in it"
    if not others:
        return "nobody else has joined yet"
    online = [p for p in others if p["online"]]
    if not online:
        return "up to date here; no other machine is online"
    return "up to date" if all(p["in_sync"] for p in online) else "up to date here; others are catching up"


def _attachment(mandate: "Mandate", name: RelPath, op: Op, notices: dict[str, Attention]) -> dict[str, Any]:
    books = mandate.books
    location = books.locations().get(name)
    shown, why = _worst(mandate, name, notices)
    known = {"path": shown, "mandate": books.name, "location": location.path if location else ""}
    state = why.state if why else _sending(mandate, name)
    figure = mandate.figures.of[name]
    return {
        "name": name.text,
        "kind": "folder" if op == Op.ATTACH_FOLDER else "file",
        "location": str(location.path) if location else None,
        "state": state,
        "reason": why.reason(**known) if why else _sending_reason(mandate, state),
        "code": why.code if why else None,
        "action": why.action(**known) if why else None,
        "commands": why.commands(**known) if why else [],
        "since": why.since_ms if why else None,
        "who": why.who if why else None,
        "version": figure.version,
        "size": figure.size,
        "files": figure.files if op == Op.ATTACH_FOLDER else None,
        "attention": [_one(mandate, shown, notices[shown], location) for shown in heapq.nsmallest(MOST_NOTICES, notices)],
    }


def _one(mandate: "Mandate", shown: str, why: Attention, location: Location | None) -> dict[str, Any]:
    known = {"path": shown, "mandate": mandate.books.name, "location": location.path if location else ""}
    told = {"reason": why.reason(**known), "action": why.action(**known), "commands": why.commands(**known)}
    return {"name": shown, "state": why.state, "code": why.code, **told}


def _by_attachment(mandate: "Mandate") -> dict[str, dict[str, Attention]]:
    """Everything that is not up to date, by the name of the attachment and by path."""
    found: dict[str, dict[str, Attention]] = {}
    for shown, why in mandate.attention.items():
        found.setdefault(shown.partition("/")[0], {})[shown] = _awaited(mandate, shown, why)
    return found


def _awaited(mandate: "Mandate", shown: str, why: Attention) -> Attention:
    """What is being received may have nobody to come from: then say whose machine is needed."""
    if why.code != "fetching" or not mandate.fetcher.nobody_has(shown):
        return why
    return Attention("nobody-has-it", why.since_ms, {"people": why.facts.get("people", "")})


def _worst(mandate: "Mandate", name: RelPath, notices: dict[str, Attention]) -> tuple[str, Attention | None]:
    """The gravest thing in one attachment: which path, and why; (name, None) when all is well."""
    if not notices:
        reading = mandate.is_reading(name)
        return name.text, Attention("being-read", mandate.books.now_ms()) if reading else None
    return min(notices.items(), key=lambda pair: (ORDER.index(pair[1].state), pair[0]))


def _sending(mandate: "Mandate", name: RelPath) -> str:
    """“sending” while a machine that is online has not yet all that was recorded about this attachment."""
    behind = [c for c in mandate.conversations if not mandate.in_sync(c)]
    if not behind:
        return "synced"
    newest = mandate.figures.of[name].newest
    return "sending" if any(mandate.position_of(c) < newest for c in behind) else "synced"


def _sending_reason(mandate: "Mandate", state: str) -> str | None:
    if state != "sending":
        return None
    people = sorted({mandate.person(c.device) for c in mandate.conversations if not mandate.in_sync(c)})
    return f"on its way to {', '.join(people)}"


def participants(office: "Office", mandate: "Mandate") -> list[dict[str, Any]]:
    """The participants, this machine first."""
    met = addresses.last_met(mandate.books.ledger.read())
    talking: dict[DeviceId, Conversation] = {c.device: c for c in mandate.conversations}
    found = []
    for device, member in mandate.books.roster.members().items():
        own = device == office.device
        conversation = talking.get(device)
        found.append(
            {
                "name": member.person,
                "device": member.device_name,
                "id": device.hex(),
                "fingerprint": fingerprint(device),
                "role": member.role.name.lower(),
                "self": own,
                "online": own or conversation is not None,
                "in_sync": mandate.agrees_here if own else conversation is not None and mandate.in_sync(conversation),
                "last_seen": office.now_ms() if own or conversation else met.get(device),
            }
        )
    return sorted(found, key=lambda p: (not p["self"], str(p["name"]).casefold()))


def metrics(office: "Office") -> str:
    """The figures in Prometheus' text format."""
    lines = [
        "# TYPE p2psync_info gauge",
        f'p2psync_info{{version="{__version__}",host="{socket.gethostname()}"}} 1',
        "# TYPE p2psync_links gauge",
        f"p2psync_links {len(office.links)}",
        "# TYPE p2psync_wire_bytes_total counter",
        f'p2psync_wire_bytes_total{{direction="in"}} {office.bytes_in}',
        f'p2psync_wire_bytes_total{{direction="out"}} {office.bytes_out}',
        "# TYPE p2psync_content_bytes_total counter",
        "# TYPE p2psync_incoming_files gauge",
        "# TYPE p2psync_conflicts gauge",
        "# TYPE p2psync_history_bytes gauge",
    ]
    for mandate in office.mandates.values():
        tag = f'{{mandate="{mandate.id.hex()[:16]}"}}'
        lines += [
            f'p2psync_content_bytes_total{tag[:-1]},direction="out"}} {mandate.bytes_out}',
            f'p2psync_content_bytes_total{tag[:-1]},direction="in"}} {mandate.fetcher.bytes_in}',
            f"p2psync_incoming_files{tag} {mandate.fetcher.missing[0]}",
            f"p2psync_conflicts{tag} {mandate.figures.conflicts}",
            f"p2psync_history_bytes{tag} {mandate.books.vault.size}",
        ]
    return "\n".join(lines) + "\n"
