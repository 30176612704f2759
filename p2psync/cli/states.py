"""The state of things as sentences, each with what to do next: what ``p2psync status`` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

from p2psync.cli.amounts import count, moment, size
from p2psync.cli.say import blocks, command, hint, paragraph, quoted, table

Json = Mapping[str, Any]

_SAY = {
    "synced": "up to date",
    "sending": "on its way to the others",
    "receiving": "a newer version is coming in",
    "waiting": "waiting",
    "conflict": "in conflict: there are two versions, and both are kept",
    "missing": "not found on this disk",
    "halted": "halted",
    "error": "problem",
}
NEEDS_PERSON = ("conflict", "halted", "error", "missing")
"""In these states a file does not go on by itself: somebody has to choose, put something back, rename it or make room."""
_AT_MOST = 4
"""So many further files of a folder are named that are not up to date."""
_QUIET = ("synced", "sending", "receiving")
"""In these states the daemon does what is to be done, and there is no next action for a person."""


def needs_person(status: Json) -> bool:
    """Whether something in ``status`` waits for somebody: a choice, or something that only a person can mend."""
    return any(problem.get("person") for problem in status.get("problems", ())) or any(
        mandate.get("conflicts")
        or mandate.get("halted")
        or any(item.get("state") in NEEDS_PERSON for item in mandate.get("attachments", ()))
        for mandate in status.get("mandates", ())
    )


def describe(status: Json) -> list[str]:
    """The whole status, as lines."""
    device, mandates = status.get("device", {}), status.get("mandates", ())
    lines = [f"{quoted(device.get('name', '?'))}, {count(len(mandates), 'mandate')}"]
    for problem in status.get("problems", ()):
        lines += ["", *paragraph(f"Problem: {problem.get('message')}", "  ", "")]
        lines += what_to_do(problem, "  ")
    for mandate in mandates:
        lines += ["", *describe_mandate(mandate)]
    if not mandates:
        lines += ["", *hint("Make a mandate:", then=command("create", then="NAME FILE..."))]
        lines += hint("Or use a ticket that somebody gave you:", then=command("subscribe", then="FILE.crsync"))
    return lines


def describe_mandate(mandate: Json) -> list[str]:
    """One mandate: its files, what is on its way, its participants."""
    shared = mandate.get("state") == "shared"
    lines = paragraph(
        f"{mandate['name']} ({'shared' if shared else 'local, on this machine only'}): {mandate.get('summary') or ''}", "  ", ""
    )
    if mandate.get("folder"):
        lines.append(f"  in {mandate['folder']}")
    lines += [line for one in mandate.get("notices", ()) for line in (*paragraph(str(one["reason"]), "  "), *what_to_do(one, "  "))]
    lines += [f"  {way}" for way in (_under_way(mandate, "incoming", "coming in"), _under_way(mandate, "outgoing", "going out")) if way]
    lines += ["  Files:"] if mandate.get("attachments") else ["  No files are attached."]
    lines += _describe_attachments(mandate)
    if mandate.get("participants") and shared:
        lines += ["  Participants:", *describe_participants(mandate["participants"], "    ")]
    return lines


def describe_participants(participants: Sequence[Json], indent: str = "") -> list[str]:
    """Who takes part: name, role, machine, and whether they have everything."""
    rows = [
        [str(person["name"]), str(person.get("role", "")), str(person.get("device") or ""), _presence(person)] for person in participants
    ]
    return table(rows, indent)


def _describe_attachments(mandate: Json) -> list[str]:
    items = sorted(mandate.get("attachments", ()), key=lambda item: str(item["name"]))
    amounts = [_amount(item) for item in items]
    wide = max(map(len, amounts), default=0)
    rows = [[str(item["name"]), amount.rjust(max(wide, 7)), _state(item)] for item, amount in zip(items, amounts, strict=True)]
    lines: list[str] = []
    for item, block in zip(items, blocks(rows, "    "), strict=True):
        lines += block
        lines += what_to_do(item) or _next_action(str(mandate["name"]), str(item["name"]), str(item.get("state")))
        lines += _also(item)
    return lines


def _amount(item: Json) -> str:
    """“2.1 MB”, or for a folder “12 files, 3.0 MB”."""
    amount = size(item.get("size"))
    return f"{count(item['files'], 'file')}, {amount}" if item.get("files") is not None else amount


def what_to_do(item: Json, indent: str = "      ") -> list[str]:
    """The next action, with the commands that it speaks of; nothing where the daemon does what is to be done."""
    commands = [str(one) for one in item.get("commands") or ()]
    if not item.get("action") or item.get("state") in _QUIET:
        return []
    lines = hint(str(item["action"]), indent, then=commands[0] if len(commands) == 1 else "")
    return lines + ([f"{indent}    {one}" for one in commands] if len(commands) > 1 else [])


def _also(item: Json) -> list[str]:
    """What else in a folder is not up to date, beside the gravest thing, which was said already."""
    others = [one for one in item.get("attention", ()) if one.get("reason") != item.get("reason") and one.get("state") not in _QUIET]
    lines = [line for one in others[:_AT_MOST] for line in paragraph(f"also: {one['reason']}", "        ", "      ")]
    more = len(others) - _AT_MOST
    return lines + ([f"      and {more} more: p2psync status --json lists them"] if more > 0 else [])


def _state(item: Json) -> str:
    said = _SAY.get(str(item.get("state")), str(item.get("state")))
    if (reason := item.get("reason")) and item.get("state") in _QUIET:
        return str(reason)
    if reason:
        return f"{said.partition(':')[0]}: {reason}"
    since = f" since {moment(item['since'])}" if item.get("since") and item.get("state") not in _QUIET else ""
    return said + since + (f" ({item['who']})" if item.get("who") else "")


def _next_action(mandate: str, name: str, state: str) -> list[str]:
    indent = "      "
    if state == "conflict":
        return hint("See the versions:", indent, command("conflicts", mandate))
    if state == "missing":
        return hint("Put it back where it was, or take it out of the mandate:", indent, command("detach", mandate, name))
    if state == "halted":
        return hint("If that was meant:", indent, command("confirm", mandate, name))
    return []


def _presence(person: Json) -> str:
    if person.get("self"):
        return "this machine"
    if person.get("online"):
        return "online, up to date" if person.get("in_sync") else "online, catching up"
    if person.get("last_seen") is None:
        return "not seen yet"
    return f"last seen {moment(person['last_seen'])}" + (", was up to date" if person.get("in_sync") else "")


def _under_way(mandate: Json, which: str, words: str) -> str:
    amount = mandate.get(which) or {}
    return f"{words}: {count(amount['files'], 'file')}, {size(amount.get('bytes'))}" if amount.get("files") else ""
