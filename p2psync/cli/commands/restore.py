"""p2psync restore: bring a version back out of the history."""

from argparse import ArgumentParser, Namespace

from p2psync.cli import exits
from p2psync.cli.arguments import absolute, take_mandate, take_name, version
from p2psync.cli.client import Daemon
from p2psync.cli.say import say

SUMMARY = "bring a version back from the history"


def declare(parser: ArgumentParser) -> None:
    """MANDATE NAME [--version V] [--to PATH]."""
    take_mandate(parser)
    take_name(parser)
    parser.add_argument("--version", metavar="V", type=version, help="as “p2psync history” prints it; without it, the current shared one")
    parser.add_argument("--to", metavar="PATH", type=absolute, help="write it there instead, and leave the shared file alone")


def perform(daemon: Daemon, args: Namespace) -> int:
    """Ask the daemon to restore it."""
    to = str(args.to) if args.to else None
    answer = daemon.post("/v1/restore", {"mandate": args.mandate, "name": args.name, "version": args.version, "to": to})
    say(answer.get("message") or "Restored.")
    return exits.DONE
