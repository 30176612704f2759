"""What the commands take: the arguments that several share, and the forms that are checked before the daemon is asked."""

import argparse
import os
import re
from pathlib import Path

_SPANS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def take_mandate(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """MANDATE, or [MANDATE]."""
    text = "its name, or the beginning of its id" + ("; without it, all of them" if optional else "")
    parser.add_argument("mandate", metavar="MANDATE", nargs="?" if optional else None, help=text)


def take_name(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """NAME, or [NAME]: something attached."""
    text = "the attached file or folder, as “p2psync status” prints it" + ("; without it, all of them" if optional else "")
    parser.add_argument("name", metavar="NAME", nargs="?" if optional else None, help=text)


def take_json(parser: argparse.ArgumentParser) -> None:
    """--json, which every command has that prints a list."""
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")


def absolute(text: str) -> Path:
    """A path as the daemon needs it: absolute by its words alone. A link stays a link, for that is what the person named."""
    if not text:
        raise argparse.ArgumentTypeError("an empty path names nothing")
    try:
        return Path(os.path.abspath(text))
    except OSError:
        raise argparse.ArgumentTypeError("the current folder does not exist any more; go to another one first") from None


def span(text: str) -> int:
    """The seconds in “90m”, “12h”, “7d” or “2w”, for argparse."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})([mhdw])", text.strip().lower())
    if not match:
        raise argparse.ArgumentTypeError(f"“{text}” is no length of time; write for example 12h or 7d")
    return int(match[1]) * _SPANS[match[2]]


def seconds(text: str) -> float:
    """A number of seconds, not negative, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < 10**9:
        raise argparse.ArgumentTypeError(f"“{text}” is no number of seconds")
    return value


def version(text: str) -> str:
    """What names a version: the first digits that ``history`` or ``conflicts`` prints, for argparse."""
    if not re.fullmatch(r"[0-9a-fA-F]{4,64}", text):
        raise argparse.ArgumentTypeError(f"“{text}” is no version; take one that “p2psync history” prints")
    return text.lower()
