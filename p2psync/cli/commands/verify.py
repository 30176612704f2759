"""p2psync verify: everything that this machine keeps, read again and compared with the journal."""

import sys
import time
from argparse import ArgumentParser, Namespace
from typing import Any

from p2psync.cli import exits
from p2psync.cli.amounts import count, size
from p2psync.cli.arguments import take_json, take_mandate
from p2psync.cli.client import Daemon
from p2psync.cli.say import hint, paragraph, say, say_json

SUMMARY = "check the journal's signatures, and what is stored, against the disk"

_EVERY_S = 0.2
_LINE = "\r\x1b[K"


def declare(parser: ArgumentParser) -> None:
    """[MANDATE] [--json]."""
    take_mandate(parser, optional=True)
    take_json(parser)


def perform(daemon: Daemon, args: Namespace) -> int:
    """Have the daemon verify, show how far it is, and tell what it found; 4 when something needs a person."""
    daemon.post("/v1/verify", {"mandate": args.mandate})
    told = _watched(daemon)
    if args.json:
        say_json(told)
    else:
        say(_describe(told))
    needs = told.get("more") or any(not finding["mended"] for finding in told["findings"])
    return exits.NEEDS_PERSON if needs else exits.DONE


def _watched(daemon: Daemon) -> dict[str, Any]:
    """Wait for the end; on a terminal, show how far it is."""
    shown = sys.stderr.isatty()
    try:
        while (told := daemon.get("/v1/verify"))["running"]:
            if shown:
                print(f"{_LINE}  {size(told['done'])} of {size(told['total'])} checked", end="", file=sys.stderr, flush=True)
            time.sleep(_EVERY_S)
    finally:
        if shown:
            print(_LINE, end="", file=sys.stderr, flush=True)
    return told


def _describe(told: dict[str, Any]) -> list[str]:
    lines = []
    for finding in told["findings"]:
        lines += paragraph(finding["message"], "  ", "" if finding["mended"] else "! ")
        lines += hint(finding["action"], "  ") if finding.get("action") else []
    if told.get("more"):
        lines.append(f"And {told['more']} more.")
    what = f"{count(told['records'], 'record')}, {count(told['chunks'], 'piece')} of the history, {count(told['files'], 'file')}"
    if not told["findings"]:
        return [f"Everything is in order: {what}, {size(told['done'])}."]
    return [*lines, "", f"Checked: {what}, {size(told['done'])}."]
