"""p2psync invite: a ticket for one new participant, as a file to carry over."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace

from p2psync.cli import exits
from p2psync.cli.amounts import moment
from p2psync.cli.arguments import absolute, span, take_mandate
from p2psync.cli.client import Daemon
from p2psync.cli.say import command, hint, quoted, say
from p2psync.cli.ticketfile import check_not_shared, is_private, new_ticket, ticket_place

SUMMARY = "make a ticket for one new participant"


def declare(parser: ArgumentParser) -> None:
    """MANDATE --for NAME [-o FILE.crsync] [--role editor|reader] [--expires 7d]."""
    take_mandate(parser)
    parser.add_argument("--for", metavar="NAME", dest="guest", required=True, help="who it is for")
    parser.add_argument("-o", metavar="FILE.crsync", dest="file", type=absolute, help="where to write it; without it, in this folder")
    parser.add_argument("--role", metavar="editor|reader", type=_role, default="editor", help="editor unless you say otherwise")
    parser.add_argument("--expires", metavar="7d", type=span, default=span("7d"), help="12h or 7d for example; 7d unless you say otherwise")


def perform(daemon: Daemon, args: Namespace) -> int:
    """Begin the file, have the daemon mint the ticket, and write it."""
    mandate = next((str(found["name"]) for found in daemon.get("/v1/status", {"mandate": args.mandate})["mandates"]), args.mandate)
    place = ticket_place(args.file, mandate, args.guest)
    check_not_shared(place, daemon.get("/v1/status")["mandates"])
    order = {"mandate": args.mandate, "for": args.guest, "role": args.role, "expires_s": args.expires}
    with new_ticket(place) as file:
        answer = daemon.post("/v1/invite", order)
        file.write(answer["ticket"].encode())
    say(
        answer.get("message")
        or f"Made a ticket to {quoted(mandate)} for {quoted(args.guest)}, good until {moment(answer.get('expires_ms'))}."
    )
    say(f"Written to: {place}")
    if not is_private(place):
        say("Note: this disk does not keep other users of this machine from reading it.")
    say(hint("Carry it to the other machine, and there:", then=command("subscribe", place.name)))
    say(hint("Whoever has the file can use it: hand it to nobody else, and erase it afterwards. You can always make another."))
    return exits.DONE


def _role(text: str) -> str:
    if text not in ("editor", "reader"):
        raise ArgumentTypeError(f"“{text}” is no role that a ticket gives; write editor or reader (owners are made with “p2psync promote”)")
    return text
