"""p2psync create: a new mandate on this machine, with files attached."""

from argparse import ArgumentParser, Namespace

from p2psync.cli import exits
from p2psync.cli.arguments import absolute
from p2psync.cli.client import Daemon
from p2psync.cli.say import command, hint, quoted, say

SUMMARY = "make a new mandate, on this machine only until it is shared"


def declare(parser: ArgumentParser) -> None:
    """MANDATE [FILE|FOLDER]... [--folder DIR] [--as NAME]."""
    parser.add_argument("mandate", metavar="MANDATE", help="its name, usually the client's")
    parser.add_argument("paths", metavar="FILE|FOLDER", nargs="*", type=absolute, help="what to attach")
    parser.add_argument("--folder", metavar="DIR", type=absolute, help="where the files of others are to be put on this machine")
    parser.add_argument("--as", metavar="NAME", dest="called", help="how the others see you; without it, by your name on this machine")


def perform(daemon: Daemon, args: Namespace) -> int:
    """Ask the daemon to create it, and say how to go on."""
    folder = str(args.folder) if args.folder else None
    paths = [str(path) for path in args.paths]
    answer = daemon.post("/v1/create", {"name": args.mandate, "paths": paths, "folder": folder, "as": args.called})
    say(answer.get("message") or f"Created {quoted(args.mandate)}.")
    say(hint("It stays on this machine until you share it:", then=command("share", args.mandate)))
    return exits.DONE
