"""p2psync subscribe: use a ticket; the mandate opens on this machine."""

from argparse import ArgumentParser, Namespace

from p2psync.cli import exits
from p2psync.cli.arguments import absolute
from p2psync.cli.client import Daemon
from p2psync.cli.say import command, hint, quoted, say
from p2psync.cli.ticketfile import read_ticket

SUMMARY = "use a ticket: the mandate opens on this machine"


def declare(parser: ArgumentParser) -> None:
    """FILE.crsync [--folder DIR] [--as NAME]."""
    parser.add_argument("file", metavar="FILE.crsync", type=absolute, help="the ticket")
    parser.add_argument("--folder", metavar="DIR", type=absolute, help="where its files are to be put on this machine")
    parser.add_argument("--as", metavar="NAME", dest="called", help="how the others see you; without it, as the ticket says")


def perform(daemon: Daemon, args: Namespace) -> int:
    """Hand the ticket to the daemon, say where the files come, and remind of erasing it."""
    text = read_ticket(args.file)
    folder = str(args.folder) if args.folder else None
    answer = daemon.post("/v1/subscribe", {"text": text, "folder": folder, "as": args.called})
    mandate = answer.get("mandate") or {}
    say(answer.get("message") or f"Subscribed to {quoted(mandate.get('name', 'the mandate'))}.")
    if answer.get("folder"):
        say(f"Its files come to: {answer['folder']}")
    if answer.get("opened", True):
        say(hint("Erase the ticket now, wherever there is a copy of it; it has done its work:", then=str(args.file)))
    else:
        say(hint("See how it goes:", then=command("status")))
    return exits.DONE
