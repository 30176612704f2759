"""p2psync status: what is attached, where it stands, and what needs a person."""

import sys
import threading
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import Any

from p2psync.cli import exits
from p2psync.cli.arguments import take_json, take_mandate
from p2psync.cli.client import Daemon, NoAnswer
from p2psync.cli.say import all_said, say, say_json
from p2psync.cli.states import describe, needs_person
from p2psync.values.errors import UserError

SUMMARY = "what is attached, where it stands, and what needs you"

_CLEAR = "\x1b[H\x1b[2J"
_BURST_S = 0.2


def declare(parser: ArgumentParser) -> None:
    """[MANDATE] [--json] [--watch]."""
    take_mandate(parser, optional=True)
    take_json(parser)
    parser.add_argument("--watch", action="store_true", help="stay, and show every change; Ctrl-C ends it")


def perform(daemon: Daemon, args: Namespace) -> int:
    """Print the status once, or with --watch at every change."""
    if args.watch:
        return _watch(daemon, args)
    status = daemon.get("/v1/status", {"mandate": args.mandate})
    if args.json:
        say_json(status)
    else:
        say(describe(status))
    return exits.NEEDS_PERSON if needs_person(status) else exits.DONE


def _watch(daemon: Daemon, args: Namespace) -> int:
    try:
        for _ in _changes(daemon):
            _show(daemon.get("/v1/status", {"mandate": args.mandate}), args.json)
    except KeyboardInterrupt:
        return exits.DONE
    raise NoAnswer


def _show(status: dict[str, Any], as_json: bool) -> None:
    if as_json:
        say_json(status, compact=True)
    elif sys.stdout.isatty():
        print(_CLEAR, end="")
        say(describe(status))
    else:
        say([*describe(status), ""])
    all_said()


def _changes(daemon: Daemon) -> Iterator[None]:
    """One item whenever something has changed since the last; a burst of changes is one. Ends when the daemon says no more.

    Raises:
        UserError: it cannot be listened to.
    """
    changed = threading.Event()
    end: list[UserError | None] = []

    def listen() -> None:
        try:
            for _ in daemon.events():
                changed.set()
            end.append(None)
        except UserError as e:
            end.append(e)
        changed.set()

    threading.Thread(target=listen, daemon=True, name="events of the daemon").start()
    while changed.wait() and not end:
        changed.clear()
        yield
        time.sleep(_BURST_S)
    if end[0]:
        raise end[0]
