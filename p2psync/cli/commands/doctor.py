"""p2psync doctor: can this machine be found and reached, does it notice changes, has it room?"""

import os
from argparse import ArgumentParser, Namespace
from typing import Any

from p2psync.cli import exits
from p2psync.cli.arguments import take_json
from p2psync.cli.client import Daemon
from p2psync.cli.say import paragraph, say, say_json
from p2psync.cli.states import what_to_do
from p2psync.store.places import default_home
from p2psync.values.errors import UserError

SUMMARY = "see whether this machine can be found and reached: network, port, limits, clock, disk"


def declare(parser: ArgumentParser) -> None:
    """[--json]."""
    take_json(parser)


def perform(daemon: Daemon, args: Namespace) -> int:
    """Ask the daemon; when none answers, say that, and look at what can be seen without one."""
    try:
        answer = daemon.get("/v1/doctor")
    except UserError as e:
        if getattr(e, "exit_code", exits.REFUSED) != exits.NO_DAEMON:
            raise
        answer = _without(e, args)
    if args.json:
        say_json(answer)
    else:
        for one in answer["findings"]:
            say([*paragraph(str(one["sentence"]), "           ", "ok         " if one["ok"] else "look here  "), *_next(one)])
    return exits.DONE if answer["ok"] else exits.NEEDS_PERSON


def _next(one: dict[str, Any]) -> list[str]:
    return [] if one["ok"] else what_to_do(one, "           ")


def _without(error: UserError, args: Namespace) -> dict[str, Any]:
    from p2psync.engine.findings import finding
    from p2psync.store import surroundings

    home = args.home or default_home(os.environ)
    first = finding("no-daemon", why=error.cause, do=error.action)
    if "start" in error.facts:  # the command is not to be broken
        first |= {"action": "Start it with:", "commands": [str(error.facts["start"])]}
    findings = [first, surroundings.of_watches(0)]
    findings += surroundings.of_disks([home] if home.exists() else [])
    return {"ok": False, "findings": [*findings, surroundings.of_home(home)]}
