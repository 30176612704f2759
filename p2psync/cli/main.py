"""The command line: finds the command, runs it, and turns every error into one sentence and an exit code."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from p2psync import __version__
from p2psync.cli import exits
from p2psync.cli.arguments import absolute
from p2psync.cli.client import Daemon
from p2psync.cli.commands import (
    Command,
    attach,
    confirm,
    conflicts,
    create,
    detach,
    doctor,
    history,
    invite,
    mandates,
    participants,
    promote,
    resolve,
    restore,
    run,
    share,
    status,
    subscribe,
    ticket,
    wait,
    why,
)
from p2psync.cli.say import OutputLost, all_said, complain
from p2psync.store.places import client_socket
from p2psync.values.errors import P2psyncError

COMMANDS: dict[str, Command] = {
    "status": status,
    "create": create,
    "attach": attach,
    "detach": detach,
    "mandates": mandates,
    "share": share,
    "invite": invite,
    "ticket": ticket,
    "subscribe": subscribe,
    "participants": participants,
    "promote": promote,
    "conflicts": conflicts,
    "resolve": resolve,
    "history": history,
    "restore": restore,
    "confirm": confirm,
    "why": why,
    "wait": wait,
    "doctor": doctor,
    "run": run,
}
"""In the order in which a newcomer meets them, which is that of the help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that ``argv`` (without the program's name; by default the process's own) asks for, and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="replace")  # An office's terminal may still be Latin-1, which has no typographic quotes.
    debug = False
    try:
        args = _parser().parse_args(argv)
        debug = args.debug
        code = _perform(args)
        all_said()
        return code
    except BrokenPipeError:
        _forget_output()
        return exits.DONE
    except OutputLost as e:
        _forget_output()
        return _failed(str(e), exits.REFUSED, debug)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except P2psyncError as e:
        return _failed(str(e), getattr(e, "exit_code", exits.REFUSED), debug)
    except Exception as e:
        return _failed(f"Something went wrong inside p2psync ({type(e).__name__}: {e}). --debug shows where.", exits.REFUSED, debug)


def _perform(args: argparse.Namespace) -> int:
    if args.command is None:
        _parser().print_help(sys.stderr)
        return exits.USAGE
    named = [word for option in ("home", "socket") if (place := getattr(args, option)) for word in (f"--{option}", str(place))]
    daemon = Daemon(args.socket or client_socket(os.environ, args.home), named)
    return COMMANDS[args.command].perform(daemon, args)


def _failed(sentence: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    complain(sentence)
    return code


def _forget_output() -> None:
    """Whoever read our output has had enough: nothing more is written, not even at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    everywhere = _options_for_every_command()
    parser = argparse.ArgumentParser(
        prog="p2psync",
        parents=[everywhere],
        description="Keeps the accounting files of an office the same on every machine that works on them.",
        epilog="“p2psync COMMAND --help” says more about a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"p2psync {__version__}")
    parser.set_defaults(home=None, socket=None, debug=False)
    commands: Any = parser.add_subparsers(prog="p2psync", dest="command", metavar="COMMAND", title="commands", parser_class=_CommandParser)
    everywhere = _options_for_every_command()
    for name, command in COMMANDS.items():
        one = commands.add_parser(name, help=command.SUMMARY, description=command.SUMMARY + ".", parents=[everywhere], allow_abbrev=False)
        command.declare(one)
    return parser


class _CommandParser(argparse.ArgumentParser):
    """Takes options before, between and after the other words, as people write them; argparse alone gives up on “NAME --option X FILE”."""

    _mixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._mixing:
            return super().parse_known_args(args, namespace)
        self._mixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False


def _options_for_every_command() -> argparse.ArgumentParser:
    """They may stand before or after the command: hence no default here, which would undo what stood before it."""
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("--home", metavar="DIR", type=absolute, help="the folder in which the daemon keeps its state (P2PSYNC_HOME)")
    parser.add_argument("--socket", metavar="PATH", type=absolute, help="the socket at which the daemon answers (P2PSYNC_SOCKET)")
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    return parser
