"""p2psync history: the versions that can be restored."""

from argparse import ArgumentParser, Namespace
from typing import Any

from p2psync.cli import exits
from p2psync.cli.amounts import moment, size
from p2psync.cli.arguments import take_json, take_mandate, take_name
from p2psync.cli.client import Daemon
from p2psync.cli.say import command, hint, say, say_json, table

SUMMARY = "list the versions that can be restored"

_ACTS = {
    "save": "saved",
    "resolve": "chosen in a conflict",
    "restore": "restored",
    "attach": "attached",
    "detach": "detached",
    "delete": "deleted",
}


def declare(parser: ArgumentParser) -> None:
    """MANDATE [NAME] [--json]."""
    take_mandate(parser)
    take_name(parser, optional=True)
    take_json(parser)


def perform(daemon: Daemon, args: Namespace) -> int:
    """Print them, file by file."""
    answer = daemon.get("/v1/history", {"mandate": args.mandate, "name": args.name})
    if args.json:
        say_json(answer)
        return exits.DONE
    versions: dict[str, list[dict[str, Any]]] = {}
    for entry in answer["versions"]:
        versions.setdefault(str(entry["name"]), []).append(entry)
    for name, entries in versions.items():
        say([name, *table([_row(entry) for entry in entries], "  "), ""])
    if versions:
        say(hint("Bring one back:", then=command("restore", args.mandate, *versions if len(versions) == 1 else (), then=_then(versions))))
    else:
        say("Nothing has been recorded yet.")
    return exits.DONE


def _then(versions: dict[str, Any]) -> str:
    return "--version VERSION" if len(versions) == 1 else "NAME --version VERSION"


def _where(entry: dict[str, Any]) -> str:
    """Why a version is not kept here, and where it may be."""
    if entry.get("dropped_ms"):
        return f"let go by the policy on {moment(entry['dropped_ms'])}; another machine may have it"
    return "not on this machine; “restore” asks the others for it"


def _row(entry: dict[str, Any]) -> list[str]:
    what = [_ACTS.get(str(entry.get("act")), str(entry.get("act")))]
    what += ["the current one"] if entry.get("current") else []
    what += [] if entry.get("kept", True) or entry.get("size") is None else [_where(entry)]
    by = str(entry.get("person") or entry.get("device") or "")
    return [str(entry["version"])[:12], moment(entry.get("when_ms")), by, size(entry.get("size")).rjust(7), ", ".join(what)]
