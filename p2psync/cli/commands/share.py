"""p2psync share: let a mandate be joined by those who are given a ticket."""

from argparse import ArgumentParser, Namespace

from p2psync.cli import exits
from p2psync.cli.arguments import take_mandate
from p2psync.cli.client import Daemon
from p2psync.cli.say import command, hint, quoted, say

SUMMARY = "let others join a mandate, with a ticket"


def declare(parser: ArgumentParser) -> None:
    """MANDATE."""
    take_mandate(parser)


def perform(daemon: Daemon, args: Namespace) -> int:
    """Ask the daemon to share it, and say how to go on."""
    answer = daemon.post("/v1/share", {"mandate": args.mandate})
    say(answer.get("message") or f"Shared {quoted(args.mandate)}.")
    say(hint("Make a ticket for each person who is to work on it:", then=command("invite", args.mandate, "--for", then="NAME")))
    return exits.DONE
