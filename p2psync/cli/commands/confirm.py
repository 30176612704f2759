"""p2psync confirm: go on after a halt."""

from argparse import ArgumentParser, Namespace

from p2psync.cli import exits
from p2psync.cli.arguments import take_mandate
from p2psync.cli.client import Daemon
from p2psync.cli.say import say

SUMMARY = "go on after a halt: what happened was meant"


def declare(parser: ArgumentParser) -> None:
    """MANDATE NAME|halt|machine."""
    take_mandate(parser)
    told = "what was halted, as “p2psync status” prints it; halt for all of it; machine: there is no second one with this one's state"
    parser.add_argument("name", metavar="NAME|halt|machine", help=told)


def perform(daemon: Daemon, args: Namespace) -> int:
    """Tell the daemon to go on."""
    answer = daemon.post("/v1/confirm", {"mandate": args.mandate, "name": args.name})
    say(answer.get("message") or "Confirmed. p2psync goes on.")
    return exits.DONE
