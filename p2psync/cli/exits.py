"""The exit codes, which scripts rely on (see docs/status-api.md)."""

from typing import Final

DONE: Final = 0
REFUSED: Final = 1
USAGE: Final = 2
NO_DAEMON: Final = 3
NEEDS_PERSON: Final = 4
TIMED_OUT: Final = 5
INTERRUPTED: Final = 130
