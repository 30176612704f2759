"""p2psync attach: put files or folders into a mandate."""

from argparse import ArgumentParser, Namespace

from p2psync.cli import exits
from p2psync.cli.arguments import absolute, take_mandate
from p2psync.cli.client import Daemon
from p2psync.cli.say import say

SUMMARY = "put files or folders into a mandate"


def declare(parser: ArgumentParser) -> None:
    """MANDATE PATH..."""
    take_mandate(parser)
    parser.add_argument("paths", metavar="PATH", nargs="+", type=absolute, help="a file or folder")


def perform(daemon: Daemon, args: Namespace) -> int:
    """Ask the daemon to attach them."""
    answer = daemon.post("/v1/attach", {"mandate": args.mandate, "paths": [str(path) for path in args.paths]})
    say(answer.get("message") or "Attached.")
    return exits.DONE
