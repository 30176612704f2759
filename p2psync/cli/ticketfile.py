"""Ticket files: read with a limit, written so that nobody else on the machine can read them and nothing is overwritten.

A ticket lets its bearer in: it never lands in a folder that p2psync shares, and a file begun for nothing is removed again.
"""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from p2psync.cli.newfile import new_file, reason
from p2psync.values.errors import UserError

SUFFIX = ".crsync"
MAX_TICKET = 16 * 1024
_MAX_NAME = 200


class TicketUnreadable(UserError):
    """The ticket “{path}” cannot be read: {why}. Check the name, and whether the stick is plugged in."""


class TicketTooLong(UserError):
    """“{path}” is not a ticket: it is longer than any ticket. Take the file that “p2psync invite” wrote."""


class TicketExists(UserError):
    """“{path}” exists already and is not overwritten. Erase it if it has done its work, or choose another name with -o."""


class TicketUnwritable(UserError):
    """The ticket cannot be written to “{path}”: {why}. Choose another place with -o, a USB stick for example."""


class TicketWouldBeShared(UserError):
    """“{folder}” belongs to the mandate “{mandate}”: a ticket there would be shared with everybody who works on it. Choose another place
    with -o, a USB stick for example.
    """


def read_ticket(path: Path) -> str:
    """The text of a ticket file.

    Raises:
        UserError: it cannot be read, or is too long to be a ticket.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TICKET + 1)
    except OSError as e:
        raise TicketUnreadable(path=path, why=reason(e)) from None
    if len(data) > MAX_TICKET:
        raise TicketTooLong(path=path)
    return data.decode("utf-8-sig", "replace")


def ticket_place(asked: Path | None, mandate: str, guest: str) -> Path:
    """Where a ticket goes: the file that was asked for, or “MANDATE for NAME.crsync” in the asked or the current folder."""
    name = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]', "-", f"{mandate} for {guest}").lstrip(".")
    while len(name.encode("utf-8", "surrogateescape")) > _MAX_NAME:
        name = name[:-1]
    if asked is None:
        return Path(os.path.abspath(name + SUFFIX))
    return asked / (name + SUFFIX) if asked.is_dir() else asked


def check_not_shared(place: Path, mandates: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a place inside a folder of one of ``mandates`` (as the status lists them).

    Raises:
        TicketWouldBeShared: with the folder and its mandate.
    """
    parent = Path(os.path.realpath(place.parent))
    for mandate in mandates:
        attached = [item.get("location") for item in mandate.get("attachments", ()) if item.get("kind") == "folder"]
        for folder in filter(None, [mandate.get("folder"), *attached]):
            if parent.is_relative_to(os.path.realpath(folder)):
                raise TicketWouldBeShared(folder=folder, mandate=mandate.get("name"))


def new_ticket(path: Path) -> AbstractContextManager[BinaryIO]:
    """A new file at ``path`` to write a ticket to, readable by its owner alone, durable at the end, removed again when the block fails.

    Raises:
        UserError: it exists, or cannot be written.
    """
    return new_file(path, 0o600, taken=TicketExists, unwritable=TicketUnwritable)


def is_private(path: Path) -> bool:
    """Whether the disk keeps others from reading ``path``; the file systems of USB sticks often cannot."""
    return path.stat().st_mode & 0o077 == 0
