"""One file a command: ``SUMMARY``, what it takes (``declare``), and what it does (``perform``), which returns the exit code."""

from argparse import ArgumentParser, Namespace
from typing import Protocol

from p2psync.cli.client import Daemon


class Command(Protocol):
    """What each module here is."""

    SUMMARY: str

    def declare(self, parser: ArgumentParser) -> None:
        """Add the arguments of the command."""

    def perform(self, daemon: Daemon, args: Namespace) -> int:
        """Do it, and return the exit code.

        Raises:
            UserError: with the sentence to print.
        """
