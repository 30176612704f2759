"""p2psync conflicts: files of which there are two versions, and how to choose."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import Any

from p2psync.cli import exits
from p2psync.cli.amounts import count, moment, size
from p2psync.cli.arguments import take_json, take_mandate
from p2psync.cli.client import Daemon
from p2psync.cli.say import blocks, command, hint, quoted, say, say_json

SUMMARY = "list the conflicts, and the versions to choose from"


def declare(parser: ArgumentParser) -> None:
    """[MANDATE] [--json]."""
    take_mandate(parser, optional=True)
    take_json(parser)


def perform(daemon: Daemon, args: Namespace) -> int:
    """Print them."""
    answer = daemon.get("/v1/conflicts", {"mandate": args.mandate})
    if args.json:
        say_json(answer)
    elif not answer["conflicts"]:
        say("There are no conflicts.")
    else:
        say(line for conflict in answer["conflicts"] for line in _describe(conflict))
    return exits.DONE


def _describe(conflict: dict[str, Any]) -> Iterator[str]:
    mandate, name, versions = str(conflict["mandate"]), str(conflict["name"]), conflict["versions"]
    yield f"{name} in {quoted(mandate)}: {count(len(versions), 'version')}, made without knowing of each other"
    for version, block in zip(versions, blocks([_row(version) for version in versions], "  "), strict=True):
        yield from block
        if version.get("copy"):
            yield f"      open it: {version['copy']}"
    yield from hint("Choose:", "  ", command("resolve", mandate, name, "--keep", then="mine|theirs|both|VERSION"))
    yield ""


def _row(version: dict[str, Any]) -> list[str]:
    whose = "mine" if version.get("mine") else f"from {version.get('device') or 'another machine'}"
    where = whose + (", stands in its place" if version.get("here") else "")
    by = str(version.get("person") or "")
    return [str(version["version"])[:12], moment(version.get("when_ms")), by, size(version.get("size")).rjust(7), where]
