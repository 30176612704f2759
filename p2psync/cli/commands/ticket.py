"""p2psync ticket: what a ticket says, checked, without using it."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import Any

from p2psync.cli import exits
from p2psync.cli.amounts import moment
from p2psync.cli.arguments import absolute, take_json
from p2psync.cli.client import Daemon
from p2psync.cli.say import quoted, say, say_json, table
from p2psync.cli.ticketfile import read_ticket

SUMMARY = "show what a ticket says, without using it"

_MORE = (
    ("approval", "An owner must approve"),
    ("for_device", "Only for the device"),
    ("protection", "Protection"),
    ("hints", "Addresses"),
    ("invite", "Ticket id"),
    ("use", "State"),
)

_PROTECTIONS = {"none": "whoever has this file can use it: keep it to yourself, and erase it once it is used"}


def declare(parser: ArgumentParser) -> None:
    """FILE.crsync [--json]."""
    parser.add_argument("file", metavar="FILE.crsync", type=absolute)
    take_json(parser)


def perform(daemon: Daemon, args: Namespace) -> int:
    """Have the daemon check it, and print the facts."""
    facts = daemon.post("/v1/ticket", {"text": read_ticket(args.file)})
    if args.json:
        say_json(facts)
    else:
        say(table(list(_facts(facts))))
    return exits.DONE


def _facts(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    mandate, issuer = facts.get("mandate") or {}, facts.get("issuer") or {}
    yield "Mandate", quoted(mandate.get("name"))
    if mandate.get("fingerprint"):
        yield "Fingerprint", str(mandate["fingerprint"])
    proof = "proved by signatures" if issuer.get("proved") else "NOT proved by the ticket itself"
    yield "Made by", " on ".join(str(issuer[key]) for key in ("person", "device") if issuer.get(key)) + f", {proof}"
    if facts.get("for"):
        yield "For", str(facts["for"])
    yield "Lets in as", str(facts.get("role"))
    yield "Made", moment(facts.get("created_ms"))
    yield "Good until", moment(facts.get("expires_ms")) + (" (EXPIRED)" if facts.get("expired") else "")
    yield "Uses", str(facts.get("uses", 1))
    for key, label in _MORE:
        if facts.get(key):
            yield label, _PROTECTIONS.get(str(facts[key]), _said(facts[key])) if key == "protection" else _said(facts[key])


def _said(value: object) -> str:
    if value is True:
        return "yes"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
