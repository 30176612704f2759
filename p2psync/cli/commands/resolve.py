"""p2psync resolve: end a conflict by choosing."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace

from p2psync.cli import exits
from p2psync.cli.arguments import take_mandate, take_name, version
from p2psync.cli.client import Daemon
from p2psync.cli.say import say

SUMMARY = "end a conflict: choose a version, or keep both"


def declare(parser: ArgumentParser) -> None:
    """MANDATE NAME --keep mine|theirs|both|VERSION."""
    take_mandate(parser)
    take_name(parser)
    text = "mine: the one on this disk; theirs: the other one; both: under two names; or a version as “p2psync conflicts” prints it"
    parser.add_argument("--keep", metavar="mine|theirs|both|VERSION", required=True, type=_choice, help=text)


def perform(daemon: Daemon, args: Namespace) -> int:
    """Ask the daemon to resolve it so."""
    answer = daemon.post("/v1/resolve", {"mandate": args.mandate, "name": args.name, "keep": args.keep})
    say(answer.get("message") or "Resolved. The other version stays in the history.")
    return exits.DONE


def _choice(text: str) -> str:
    if text in ("mine", "theirs", "both"):
        return text
    try:
        return version(text)
    except ArgumentTypeError:
        raise ArgumentTypeError(f"“{text}” is none of mine, theirs and both, nor a version as “p2psync conflicts” prints it") from None
