"""p2psync promote: make a participant an owner, after comparing fingerprints (no ticket ever does), or a reader an editor."""

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace

from p2psync.cli import exits
from p2psync.cli.arguments import take_mandate
from p2psync.cli.client import Daemon
from p2psync.cli.say import quoted, say
from p2psync.values.errors import UserError

SUMMARY = "make a participant an owner, or a reader an editor"


class NotCompared(UserError):
    """“{name}” was not promoted. Compare the fingerprints on both machines first."""


def declare(parser: ArgumentParser) -> None:
    """MANDATE NAME [--role owner|editor]."""
    take_mandate(parser)
    parser.add_argument("name", metavar="NAME", help="the participant, as “p2psync participants” prints it")
    parser.add_argument("--role", metavar="owner|editor", default="owner", type=_role, help="owner unless you say otherwise")


def perform(daemon: Daemon, args: Namespace) -> int:
    """On a terminal, have the fingerprint compared; then ask the daemon to promote."""
    if sys.stdin.isatty() and sys.stdout.isatty() and not _compared(daemon, args.mandate, args.name):
        raise NotCompared(name=args.name)
    answer = daemon.post("/v1/promote", {"mandate": args.mandate, "for": args.name, "role": args.role})
    say(answer.get("message") or f"{quoted(args.name)} is {args.role} now.")
    return exits.DONE


def _role(text: str) -> str:
    if text not in ("owner", "editor"):
        raise ArgumentTypeError(f"there is no role “{text}” to give; owner or editor")
    return text


def _compared(daemon: Daemon, mandate: str, name: str) -> bool:
    """True when the person says that it is the right machine, or when there is nothing to show."""
    people = daemon.get("/v1/participants", {"mandate": mandate})["participants"]
    shown = [str(person["fingerprint"]) for person in people if person["name"] == name and person.get("fingerprint")]
    if not shown:
        return True
    say(f"The machine of {quoted(name)} must show this fingerprint (p2psync participants there): {', '.join(shown)}")
    try:
        return input("Is it the same? [y/N] ").strip().lower() in ("y", "yes", "o", "oui", "j", "ja")
    except EOFError:
        return False
