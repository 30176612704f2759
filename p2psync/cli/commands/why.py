"""p2psync why: the story of one file: how it stands, what is awaited and from whom, and what happened to it."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import Any

from p2psync.cli import exits
from p2psync.cli.amounts import moment, size
from p2psync.cli.arguments import take_json, take_mandate
from p2psync.cli.client import Daemon
from p2psync.cli.say import blocks, command, hint, paragraph, quoted, say, say_json, table
from p2psync.cli.states import NEEDS_PERSON, what_to_do

SUMMARY = "tell the story of one file: what happened, what is awaited, from whom"


def declare(parser: ArgumentParser) -> None:
    """MANDATE NAME [--all] [--json]."""
    take_mandate(parser)
    parser.add_argument("name", metavar="NAME", help="as “p2psync status” prints it, also inside a folder, or the whole path on this disk")
    parser.add_argument("--all", action="store_true", help="all that ever happened, not only the last 20 changes")
    take_json(parser)


def perform(daemon: Daemon, args: Namespace) -> int:
    """Ask for it, and tell it."""
    answer = daemon.get("/v1/why", {"mandate": args.mandate, "name": args.name, "all": "1" if args.all else None})
    if args.json:
        say_json(answer)
    else:
        say(_told(answer, args.mandate, args.name))
    return exits.NEEDS_PERSON if answer["now"].get("state") in NEEDS_PERSON else exits.DONE


def _told(answer: dict[str, Any], mandate: str, name: str) -> Iterator[str]:
    now, here = answer["now"], answer.get("here") or {}
    yield from paragraph(f"{answer['name']} in {quoted(answer['mandate']['name'])}")
    yield ""
    since = f" (since {moment(now['since'])})" if now.get("since") else ""
    yield from paragraph(f"Now: {now.get('reason')}{since}", "  ", "")
    yield from what_to_do(now | {"state": ""}, "  ")
    yield from _here(here)
    yield from _awaited(answer.get("awaited"))
    if answer.get("versions"):
        yield from ["", "The versions to choose from:"]
        for version, block in zip(answer["versions"], blocks([_version(one) for one in answer["versions"]], "  "), strict=True):
            yield from block
            if version.get("copy"):
                yield f"      {version['copy']}"
    if answer.get("machines"):
        yield from ["", "Who has it:", *table([_machine(one) for one in answer["machines"]], "  ")]
    if answer["story"]:
        yield from ["", "What happened, the latest first (times by the clock of the machine where it was done):"]
        yield from table([[moment(one["when_ms"]), str(one["sentence"])] for one in answer["story"]], "  ")
    if answer.get("more"):
        yield from hint(f"And {answer['more']} earlier:", "  ", command("why", mandate, name, "--all"))


def _here(here: dict[str, Any]) -> Iterator[str]:
    if not here.get("location"):
        return
    if here.get("kind") is None:
        yield f"  On this machine nothing stands at its place: {here['location']}"
        return
    amount = f" ({size(here['size'])})" if here.get("kind") == "file" else ""
    yield f"  On this machine{amount}: {here['location']}"
    if here.get("open"):
        since = f" since {moment(here['open_since'])}" if here.get("open_since") else ""
        yield from paragraph(f"It is {here['open']}{since}.", "  ")


def _awaited(awaited: dict[str, Any] | None) -> Iterator[str]:
    if not awaited:
        return
    have = ", ".join(awaited["have_it"])
    from_whom = f"it is asked of whoever is online: {', '.join(awaited['online'])}" if awaited["online"] else "nobody who has it is online"
    known = f" {have} has it." if have else ""
    yield from paragraph(f"Still to come: {size(awaited['bytes'])} of {size(awaited['of'])}; {from_whom}.{known}", "  ")


def _version(one: dict[str, Any]) -> list[str]:
    return [str(one["version"]), moment(one["when_ms"]), str(one["person"]), size(one["size"]).rjust(7), str(one["sentence"])]


def _machine(one: dict[str, Any]) -> list[str]:
    if one.get("self"):
        seen = ""
    elif one.get("online"):
        seen = "online"
    else:
        seen = f"last seen {moment(one['last_seen'])}" if one.get("last_seen") else "not seen yet"
    return [str(one["machine"]), seen, str(one["sentence"])]
