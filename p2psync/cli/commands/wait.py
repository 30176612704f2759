"""p2psync wait: return when this machine and every online participant hold the same versions."""

import math
import time
from argparse import ArgumentParser, Namespace

from p2psync.cli import exits
from p2psync.cli.arguments import seconds, take_mandate
from p2psync.cli.client import Daemon
from p2psync.cli.say import paragraph, say
from p2psync.cli.states import what_to_do

SUMMARY = "wait until everybody who is online has the same versions"

_ROUND_S = 20.0


def declare(parser: ArgumentParser) -> None:
    """[MANDATE] [--timeout S]."""
    take_mandate(parser, optional=True)
    parser.add_argument("--timeout", metavar="S", type=seconds, help="give up after so many seconds; without it, never")


def perform(daemon: Daemon, args: Namespace) -> int:
    """Ask in rounds, so that neither side holds a request for hours, until it is so or time runs out."""
    until = math.inf if args.timeout is None else time.monotonic() + args.timeout
    while True:
        left = max(until - time.monotonic(), 0)
        answer = daemon.post("/v1/wait", {"mandate": args.mandate, "timeout_s": min(left, _ROUND_S)})
        if answer["agreed"]:
            say(answer.get("message") or "Everybody who is online has the same versions.")
            return exits.DONE
        if time.monotonic() >= until:
            say("Not everybody has the same versions yet.")
            for one in answer.get("waiting") or [{"reason": reason} for reason in answer.get("waiting_for", ())]:
                say([*paragraph(str(one["reason"]), "  "), *what_to_do(one, "  ")])
            return exits.TIMED_OUT
