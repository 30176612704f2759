"""p2psync detach: take something out of a mandate; no file is deleted anywhere."""

from argparse import ArgumentParser, Namespace

from p2psync.cli import exits
from p2psync.cli.arguments import take_mandate, take_name
from p2psync.cli.client import Daemon
from p2psync.cli.say import say

SUMMARY = "take a file or folder out of a mandate; deletes nothing on any disk"


def declare(parser: ArgumentParser) -> None:
    """MANDATE NAME."""
    take_mandate(parser)
    take_name(parser)


def perform(daemon: Daemon, args: Namespace) -> int:
    """Ask the daemon to detach it."""
    answer = daemon.post("/v1/detach", {"mandate": args.mandate, "name": args.name})
    say(answer.get("message") or "Detached. The file stays on every disk where it is.")
    return exits.DONE
