"""p2psync participants: who works on a mandate, and which tickets are open."""

from argparse import ArgumentParser, Namespace
from typing import Any

from p2psync.cli import exits
from p2psync.cli.amounts import moment
from p2psync.cli.arguments import take_json, take_mandate
from p2psync.cli.client import Daemon
from p2psync.cli.say import say, say_json, table
from p2psync.cli.states import describe_participants

SUMMARY = "list who works on a mandate"


def declare(parser: ArgumentParser) -> None:
    """MANDATE [--json]."""
    take_mandate(parser)
    take_json(parser)


def perform(daemon: Daemon, args: Namespace) -> int:
    """Print them."""
    answer = daemon.get("/v1/participants", {"mandate": args.mandate})
    if args.json:
        say_json(answer)
        return exits.DONE
    for person, block in zip(answer["participants"], describe_participants(answer["participants"]), strict=True):
        say(block)
        if person.get("fingerprint"):
            say(f"    fingerprint {person['fingerprint']}")
    if tickets := answer.get("tickets"):
        say(["", "Tickets that have not been used:", *table([_ticket(ticket) for ticket in tickets], "  ")])
    return exits.DONE


def _ticket(ticket: dict[str, Any]) -> list[str]:
    return [
        str(ticket.get("for", "")),
        str(ticket.get("id", ""))[:8],
        str(ticket.get("role", "")),
        f"until {moment(ticket.get('expires_ms'))}",
    ]
