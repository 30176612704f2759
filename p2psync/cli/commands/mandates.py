"""p2psync mandates: which mandates this machine knows."""

from argparse import ArgumentParser, Namespace
from typing import Any

from p2psync.cli import exits
from p2psync.cli.arguments import take_json
from p2psync.cli.client import Daemon
from p2psync.cli.say import command, hint, say, say_json, table

SUMMARY = "list the mandates of this machine"


def declare(parser: ArgumentParser) -> None:
    """[--json]."""
    take_json(parser)


def perform(daemon: Daemon, args: Namespace) -> int:
    """Print them."""
    answer = daemon.get("/v1/mandates")
    if args.json:
        say_json(answer)
    elif not answer["mandates"]:
        say("There are no mandates on this machine.")
        say(hint("Make one:", then=command("create", then="NAME FILE...")))
    else:
        say(table([_row(mandate) for mandate in answer["mandates"]], whole=True))
    return exits.DONE


def _row(mandate: dict[str, Any]) -> list[str]:
    place = [str(mandate[key]) for key in ("role", "folder") if mandate.get(key)]
    return [str(mandate["name"]), str(mandate["id"])[:8], str(mandate["state"]), ", ".join(place)]
