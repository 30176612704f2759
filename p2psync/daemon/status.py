"""What the status socket tells: plain dictionaries in the shape of docs/status-api.md, from memory and a few reads of the ledger.

It never waits for a round: it answers whatever the mandates are doing.
"""

import heapq
import json
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import trio

from p2psync import __version__
from p2psync.daemon.problems import problems as problems
from p2psync.engine.attention import ORDER, Attention
from p2psync.engine.concerns import told
from p2psync.store import addresses, checking
from p2psync.store.locations import Location
from p2psync.values.amounts import amount, count
from p2psync.values.digest import fingerprint
from p2psync.values.entry import Op
from p2psync.values.names import DeviceId, RelPath

if TYPE_CHECKING:
    from p2psync.daemon.conversation import Conversation
    from p2psync.daemon.mandate import Mandate
    from p2psync.daemon.office import Office

MOST_NOTICES = 100
"""Paths of one attachment that the status tells of one by one."""
COUNTING_S = 0.05
"""A status waits so long for the figures of a journal that has just grown; then it tells those it has."""


async def ready_to_tell(mandates: "Iterable[Mandate]") -> None:
    """Let what a status tells be up to date, as far as that takes no time."""
    with trio.move_on_after(COUNTING_S):
        for mandate in list(mandates):  # others may be opened meanwhile
            await mandate.reckoning.counted()


def status(office: "Office", only: "Mandate | None" = None) -> dict[str, Any]:
    """The whole status, or that of one mandate."""
    mandates = [only] if only is not None else list(office.mandates.values())
    return {
        "device": {"id": office.device.hex(), "name": office.device_name},
        "version": __version__,
        "port": office.port,
        "problems": problems(office),
        "disks": disks(office),
        "mandates": [of_mandate(office, mandate) for mandate in sorted(mandates, key=lambda mandate: mandate.books.name.casefold())],
    }


def of_mandate(office: "Office", mandate: "Mandate") -> dict[str, Any]:
    """One mandate."""
    books = mandate.books
    notices = _by_attachment(mandate)
    attached = sorted(mandate.reckoning.figures.attachments.items())
    attachments = [_attachment(mandate, name, op, notices.get(name.text, {})) for name, op in attached]
    people = participants(office, mandate)
    files, size = mandate.fetcher.missing
    behind = [c.held for c in mandate.conversations if c.held is not None and not mandate.reckoning.in_sync(c)]
    conflicts = mandate.reckoning.figures.conflicts
    return {
        "id": mandate.id.hex(),
        "name": books.name,
        "state": "shared" if books.shared else "local",
        "folder": str(books.folder),
        "role": books.me.role.name.lower() if books.me else None,
        "summary": _summary(books.shared, attachments, people, conflicts),
        "attachments": attachments,
        "participants": people,
        "notices": notices_of(mandate),
        "conflicts": conflicts,
        "incoming": {"files": files, "bytes": size},
        "outgoing": {"files": sum(held.files for held in behind), "bytes": sum(held.bytes for held in behind)},
        "busy": not mandate.idle,
        "history": {
            "bytes": books.vault.used,
            "file_bytes": books.vault.size,
            "versions": mandate.reckoning.figures.versions,
            "policy": str(office.config.keep),
        },
        "verified": _verified(mandate),
    }


def _verified(mandate: "Mandate") -> dict[str, int] | None:
    found = checking.verified(mandate.books)
    return None if found is None else {"when_ms": found[0], "findings": found[1]}


def disks(office: "Office") -> list[dict[str, Any]]:
    """The disks of the state directory and of the attachments, as they were seen last; nothing is fetched to one below its ``floor``."""
    return [
        {"path": str(place), "free": disk.free, "total": disk.total, "floor": disk.floor, "short": disk.free < disk.floor}
        for place, disk in office.disks.items()
    ]


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
    location = mandate.books.locations().get(name)
    shown, why = _worst(mandate, name, notices)
    figure = mandate.reckoning.figures.of[name]
    return {
        "name": name.text,
        "kind": "folder" if op == Op.ATTACH_FOLDER else "file",
        "location": str(location.path) if location else None,
        **told_of(mandate, shown, why, location),
        "version": figure.version,
        "size": figure.size,
        "files": figure.files if op == Op.ATTACH_FOLDER else None,
        "attention": [_one(mandate, shown, notices[shown], location) for shown in heapq.nsmallest(MOST_NOTICES, notices)],
    }


def told_of(mandate: "Mandate", shown: str, why: Attention | None, location: Location | None) -> dict[str, Any]:
    """What the status says of a path: its state and, unless that is “synced”, the reason, the machine and the next action."""
    if why is None:
        return {"state": "synced"} | dict.fromkeys(("code", "reason", "machine", "action", "since", "who"), None) | {"commands": []}
    known = {"path": shown, "mandate": mandate.books.name, "location": location.path if location else ""}
    return {
        "state": why.state,
        "code": why.code,
        "reason": why.reason(**known),
        "machine": why.machine,
        "action": why.action(**known),
        "commands": why.commands(**known),
        "since": why.since_ms,
        "who": why.who,
    }


def _one(mandate: "Mandate", shown: str, why: Attention, location: Location | None) -> dict[str, Any]:
    return {"name": shown, **told_of(mandate, shown, why, location)}


def _by_attachment(mandate: "Mandate") -> dict[str, dict[str, Attention]]:
    """Everything that is not up to date, by the name of the attachment and by path."""
    found: dict[str, dict[str, Attention]] = {}
    for shown, why in mandate.attention.items():
        found.setdefault(shown.partition("/")[0], {})[shown] = awaited(mandate, shown, why)
    return found


def awaited(mandate: "Mandate", shown: str, why: Attention) -> Attention:
    """What is being received may have nobody to come from: then say whose machine is needed."""
    if why.code != "fetching" or not mandate.fetcher.nobody_has(shown):
        return why
    machine = why.facts.get("author", "")
    return Attention("nobody-has-it", why.since_ms, {"people": why.facts.get("people", ""), "machine": machine})


def _worst(mandate: "Mandate", name: RelPath, notices: dict[str, Attention]) -> tuple[str, Attention | None]:
    """The gravest thing in one attachment: which path, and why; (name, None) when all is well."""
    if notices:
        return min(notices.items(), key=lambda pair: (ORDER.index(pair[1].state), pair[0]))
    if mandate.is_reading(name):
        return name.text, Attention("being-read", mandate.reading_since_ms())
    return name.text, sending(mandate, name.text, mandate.reckoning.figures.of[name].newest)


def sending(mandate: "Mandate", shown: str, newest: int) -> Attention | None:
    """Who is online and has not yet all that was recorded up to our entry ``newest``, the last about ``shown``; None: nobody."""
    behind = [c for c in mandate.conversations if not mandate.reckoning.in_sync(c) and mandate.reckoning.position_of(c) < newest]
    if not behind:
        return None
    people = " and ".join(sorted({mandate.person(c.device) for c in behind}))
    return Attention("sending", None, {"people": people, "machine": ", ".join(sorted(mandate.machine(c.device) for c in behind))})


def notices_of(mandate: "Mandate") -> list[dict[str, Any]]:
    """What is to be known of a mandate as a whole."""
    return [] if mandate.books.me is not None else [told("untold", machine="another machine", mandate=mandate.books.name)]


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
                "in_sync": mandate.agrees_here if own else conversation is not None and mandate.reckoning.in_sync(conversation),
                "last_seen": office.now_ms() if own or conversation else met.get(device),
                **(_nothing() if own else behind(mandate, device, conversation, met.get(device))),
            }
        )
    return sorted(found, key=lambda p: (not p["self"], str(p["name"]).casefold()))


def behind(mandate: "Mandate", device: DeviceId, conversation: "Conversation | None", met_ms: int | None) -> dict[str, Any]:
    """Why a participant does not have everything, as far as this machine knows; empty fields when it has."""
    books = mandate.books
    machine, name = mandate.machine(device), books.name
    if conversation is None:
        return told("never-met" if met_ms is None else "offline", machine=machine, since_ms=met_ms)
    if mandate.reckoning.in_sync(conversation):
        return _nothing()
    held = conversation.held
    if held is None:
        return told("just-come", machine=machine, mandate=name)
    if not held.files:
        return told("other-books", machine=machine, mandate=name)
    lacks = f" ({amount(held.files, held.bytes) if held.bytes else count(held.files, 'file')} to go)"
    return told("catching-up", machine=machine, lacks=lacks, mandate=name)


def _nothing() -> dict[str, Any]:
    return dict.fromkeys(("code", "reason", "machine", "action", "since"), None) | {"commands": []}


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
        "# TYPE p2psync_history_versions gauge",
        "# TYPE p2psync_disk_free_bytes gauge",
        *(f"p2psync_disk_free_bytes{{path={json.dumps(str(place))}}} {disk.free}" for place, disk in office.disks.items()),
    ]
    for mandate in office.mandates.values():
        tag = f'{{mandate="{mandate.id.hex()[:16]}"}}'
        lines += [
            f'p2psync_content_bytes_total{tag[:-1]},direction="out"}} {mandate.bytes_out}',
            f'p2psync_content_bytes_total{tag[:-1]},direction="in"}} {mandate.fetcher.bytes_in}',
            f"p2psync_incoming_files{tag} {mandate.fetcher.missing[0]}",
            f"p2psync_conflicts{tag} {mandate.reckoning.figures.conflicts}",
            f"p2psync_history_bytes{tag} {mandate.books.vault.used}",
            f"p2psync_history_versions{tag} {mandate.reckoning.figures.versions}",
        ]
    return "\n".join(lines) + "\n"
