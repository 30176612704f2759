"""Where things are when nobody says otherwise: the state directory and the status socket.

Pure but for the last two functions, and light: the command line imports this and nothing else of the daemon.
"""

import os
import pwd
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from p2psync.values.errors import UserError

SOCKET_NAME = "control.sock"

SYSTEM_SOCKET = Path("/run/p2psync") / SOCKET_NAME
"""Where the system service listens; only root can make that directory."""

MAX_SOCKET_PATH = 100
"""Bytes of a socket's path that every system takes: 108 on Linux, 104 on BSD and macOS, a terminating zero included (unix(7))."""


class SocketPathTooLong(UserError):
    """The path of the status socket, “{path}”, is too long for a socket. Choose a shorter one with --socket."""


class NoHomeKnown(UserError):
    """This user has no home folder, so that p2psync does not know where to keep its state. Choose a folder with --home."""


def default_home(environ: Mapping[str, str]) -> Path:
    """The state directory: ``P2PSYNC_HOME``, else systemd's ``STATE_DIRECTORY``, else XDG's place for a user's data."""
    named = environ.get("P2PSYNC_HOME") or _first(environ.get("STATE_DIRECTORY"))
    return _absolute(named) if named else _xdg(environ, "XDG_DATA_HOME", ".local/share") / "p2psync"


def default_witness(environ: Mapping[str, str], home: Path | None = None) -> Path | None:
    """Where the witness of this machine's logs is, outside the state directory, so that no backup of that brings an old one back.

    Beside a ``home`` that was named, systemd's ``CACHE_DIRECTORY``, or XDG's place for what backups leave out; None where there is none.
    """
    if home is not None or environ.get("P2PSYNC_HOME"):
        named = home or default_home(environ)
        return named.parent / f".{named.name}.witness"
    if cache := _first(environ.get("CACHE_DIRECTORY")):
        return Path(cache) / "witness"
    try:
        return _xdg(environ, "XDG_CACHE_HOME", ".cache") / "p2psync" / "witness"
    except NoHomeKnown:
        return None


def default_socket(environ: Mapping[str, str], home: Path | None = None) -> Path:
    """The status socket: ``P2PSYNC_SOCKET``, else beside the state of a ``home`` that was named, else where systemd or XDG want it.

    ``home`` is the directory given with ``--home``, or None when it was not given.
    """
    if named := environ.get("P2PSYNC_SOCKET"):
        return _absolute(named)
    if home is not None or environ.get("P2PSYNC_HOME"):
        return (home or default_home(environ)) / SOCKET_NAME
    if runtime := _first(environ.get("RUNTIME_DIRECTORY")):
        return Path(runtime) / SOCKET_NAME
    session = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(session):
        return Path(session) / "p2psync" / SOCKET_NAME
    return default_home(environ) / SOCKET_NAME


def client_socket(environ: Mapping[str, str], home: Path | None = None, *, exists: Callable[[Path], bool] | None = None) -> Path:
    """The socket a command talks to: the user's own, or the system service's when that one is there and the user's is not.

    A socket or home that somebody named is never exchanged for another.
    """
    exists = exists or _may_exist
    own = default_socket(environ, home)
    named = home is not None or environ.get("P2PSYNC_SOCKET") or environ.get("P2PSYNC_HOME")
    return SYSTEM_SOCKET if not named and not exists(own) and exists(SYSTEM_SOCKET) else own


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """A name for ``path`` that fits into a socket's address, valid inside the ``with`` block, for bind and connect.

    A long path is reached through a descriptor of its directory.

    Raises:
        SocketPathTooLong: no way to say it in few enough bytes.
        OSError: its directory cannot be opened.
    """
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        yield str(path)
        return
    if len(os.fsencode(path.name)) > MAX_SOCKET_PATH // 2 or not os.path.isdir("/proc/self/fd"):
        raise SocketPathTooLong(path=path)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _first(directories: str | None) -> str:
    """The first of the directories that systemd lists, separated by colons (systemd.exec(5))."""
    return (directories or "").partition(":")[0]


def _may_exist(path: Path) -> bool:
    """True also where we may not look: whoever is not in the group is to hear exactly that."""
    try:
        path.lstat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _absolute(path: str) -> Path:
    return Path(os.path.abspath(path))


def _xdg(environ: Mapping[str, str], variable: str, below_home: str) -> Path:
    """XDG base directory; a relative value is to be ignored, says its specification."""
    value = environ.get(variable, "")
    if os.path.isabs(value):
        return Path(value)
    try:
        return Path(environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir) / below_home
    except KeyError:
        raise NoHomeKnown from None
