"""What the status socket tells: plain dictionaries in the shape of docs/status-api.md, from memory and a few reads of the ledger.

It never waits for a round: it answers whatever the mandates are doing.
"""

import socket
from typing import TYPE_CHECKING, Any

from p2psync import __version__
from p2psync.engine.attention import ORDER, Attention
from p2psync.store import addresses, versions
from p2psync.store.locations import Location
from p2psync.values.content import File
from p2psync.values.digest import fingerprint
from p2psync.values.entry import Op
from p2psync.values.names import DeviceId, RelPath

if TYPE_CHECKING:
    from p2psync.daemon.conversation import Conversation
    from p2psync.daemon.mandate import Mandate
    from p2psync.daemon.office import Office

CLOCK_OFF_MS = 5 * 60 * 1000
"""Clocks that differ by more are worth a word, though nothing depends on them."""


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
        if mandate.problem is not None:
            found.append({"code": mandate.problem.code, "message": str(mandate.problem), "action": ""})
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
            message = f"The clocks of this machine and of {_machine(office, device)} differ by {abs(peer.clock_off_ms) // 60_000} minutes."
            found.append({"code": "clock-differs", "message": message, "action": "Set the right time on the one that is wrong."})
    return found


def _machine(office: "Office", device: DeviceId) -> str:
    for mandate in office.mandates.values():
        intro = mandate.books.roster.intro(device)
        if intro is not None:
            return f"{intro.person} ({intro.device_name})"
    return device.hex()[:8]


def of_mandate(office: "Office", mandate: "Mandate") -> dict[str, Any]:
    """One mandate."""
    books = mandate.books
    attachments = [_attachment(mandate, name, op) for name, op in sorted(books.attachments().items())]
    people = participants(office, mandate)
    files, size = mandate.fetcher.missing
    behind = [c.held for c in mandate.conversations if c.held is not None and not mandate.in_sync(c)]
    conflicts = len(versions.conflicted(books.ledger.read()))
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


def _summary(shared: bool, attachments: list[dict[str, Any]], people: list[dict[str, Any]], conflicts: int) -> str:
    waiting = [a for a in attachments if a["state"] not in ("synced", "conflict")]
    if conflicts:
        return "1 file in conflict" if conflicts == 1 else f"{conflicts} files in conflict"
    if waiting:
        worst = min((a["state"] for a in waiting), key=ORDER.index)
        return f"{sum(a['state'] == worst for a in waiting)} of {len(attachments)} {worst}"
    others = [p for p in people if not p["self"]]
    if not shared:
        return "local: only on this machine"
    if not others:
        return "shared; nobody else has joined yet"
    online = [p for p in others if p["online"]]
    if not online:
        return "up to date here; no other machine is online"
    return "up to date" if all(p["in_sync"] for p in online) else "up to date here; others are catching up"


def _attachment(mandate: "Mandate", name: RelPath, op: Op) -> dict[str, Any]:
    books = mandate.books
    location = books.locations().get(name)
    shown, why = worst_of(mandate, name)
    known = {"path": shown, "mandate": books.name, "location": location.path if location else ""}
    state = why.state if why else _sending(mandate, name)
    version, size = _version(mandate, name)
    return {
        "name": name.text,
        "kind": "folder" if op == Op.ATTACH_FOLDER else "file",
        "location": str(location.path) if location else None,
        "state": state,
        "reason": why.reason(**known) if why else _sending_reason(mandate, state),
        "code": why.code if why else None,
        "action": why.action(**known) if why else None,
        "since": why.since_ms if why else None,
        "who": why.who if why else None,
        "version": version,
        "size": size,
        "attention": [_one(mandate, shown, a, location) for shown, a in sorted(attention_in(mandate, name).items())][:100],
    }


def _one(mandate: "Mandate", shown: str, why: Attention, location: Location | None) -> dict[str, Any]:
    known = {"path": shown, "mandate": mandate.books.name, "location": location.path if location else ""}
    return {"name": shown, "state": why.state, "code": why.code, "reason": why.reason(**known), "action": why.action(**known)}


def attention_in(mandate: "Mandate", name: RelPath) -> dict[str, Attention]:
    """Everything in one attachment that is not up to date, by path."""
    found = {s: a for s, a in mandate.attention.items() if s == name.text or s.startswith(name.text + "/")}
    return {shown: _awaited(mandate, shown, why) for shown, why in found.items()}


def _awaited(mandate: "Mandate", shown: str, why: Attention) -> Attention:
    """What is being received may have nobody to come from: then say whose machine is needed."""
    if why.code != "fetching":
        return why
    want = next((path for path in mandate.fetcher.wants if path.text == shown), None)
    if want is None or not mandate.fetcher.nobody_has(want):
        return why
    db = mandate.books.ledger.read()
    heads = versions.heads(db, want)
    people = sorted({mandate.person(versions.version_of(db, head.ref).device) for head in heads.all if isinstance(head.state, File)})
    return Attention("nobody-has-it", why.since_ms, {"people": " or ".join(people)})


def worst_of(mandate: "Mandate", name: RelPath) -> tuple[str, Attention | None]:
    """The gravest thing in one attachment: which path, and why; (name, None) when all is well."""
    found = attention_in(mandate, name)
    if not found:
        reading = mandate.is_reading(name)
        return name.text, Attention("being-read", mandate.books.now_ms()) if reading else None
    return min(found.items(), key=lambda pair: (ORDER.index(pair[1].state), pair[0]))


def _sending(mandate: "Mandate", name: RelPath) -> str:
    """“sending” while a machine that is online has not yet all that was recorded about this attachment."""
    behind = [c for c in mandate.conversations if not mandate.in_sync(c)]
    if not behind:
        return "synced"
    newest = mandate.newest_entry(name)
    return "sending" if any(mandate.position_of(c) < newest for c in behind) else "synced"


def _sending_reason(mandate: "Mandate", state: str) -> str | None:
    if state != "sending":
        return None
    people = sorted({mandate.person(c.device) for c in mandate.conversations if not mandate.in_sync(c)})
    return f"on its way to {', '.join(people)}"


def _version(mandate: "Mandate", name: RelPath) -> tuple[str | None, int]:
    db = mandate.books.ledger.read()
    heads = versions.heads(db, name)
    if heads.all and isinstance(heads.winner.state, File):
        return versions.version_name(heads.winner.ref), heads.winner.state.content.size
    size = db.execute(
        "SELECT coalesce(sum(size), 0) FROM entries WHERE head = 1 AND path > ? AND path < ?", (name.text + "/", name.text + "0")
    ).fetchone()[0]
    return None, int(size)


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
            f"p2psync_conflicts{tag} {len(versions.conflicted(mandate.books.ledger.read()))}",
            f"p2psync_history_bytes{tag} {mandate.books.vault.size}",
        ]
    return "\n".join(lines) + "\n"
