"""p2psync restore: bring a version back out of the history."""

from argparse import ArgumentParser, Namespace

from p2psync.cli import exits
from p2psync.cli.arguments import absolute, take_mandate, take_name, version
from p2psync.cli.client import Daemon
from p2psync.cli.newfile import new_file
from p2psync.cli.say import quoted, say
from p2psync.values.errors import UserError

SUMMARY = "bring a version back from the history"


class TargetTaken(UserError):
    """“{path}” exists already. Choose another place for the version; nothing was changed."""


class TargetUnwritable(UserError):
    """The version cannot be written to “{path}”: {why}. Choose another place; nothing was changed."""


def declare(parser: ArgumentParser) -> None:
    """MANDATE NAME [--version V] [--to PATH]."""
    take_mandate(parser)
    take_name(parser)
    parser.add_argument("--version", metavar="V", type=version, help="as “p2psync history” prints it; without it, the current shared one")
    parser.add_argument("--to", metavar="PATH", type=absolute, help="write it there instead, and leave the shared file alone")


def perform(daemon: Daemon, args: Namespace) -> int:
    """Have the daemon bring it back; or fetch it, and write it where its user wants it, who may write where the daemon may not."""
    which = {"mandate": args.mandate, "name": args.name, "version": args.version}
    if args.to:
        with new_file(args.to, 0o666, taken=TargetTaken, unwritable=TargetUnwritable) as file:
            daemon.post("/v1/recall", which)
            daemon.download("/v1/content", which, file)
        say(f"That version of {quoted(args.name)} was written to {args.to}.")
    else:
        say(daemon.post("/v1/restore", which).get("message") or "Restored.")
    return exits.DONE
