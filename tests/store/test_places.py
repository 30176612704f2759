"""Where home and socket are, for every way in which the daemon and its commands are started."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from p2psync.store.places import (
    SYSTEM_SOCKET,
    SocketPathTooLong,
    client_socket,
    default_home,
    default_socket,
    default_witness,
    socket_address,
)

USER = {"HOME": "/home/anna", "XDG_RUNTIME_DIR": "/run/user/1000"}
SERVICE = {"HOME": "/var/lib/p2psync", "STATE_DIRECTORY": "/var/lib/p2psync", "RUNTIME_DIRECTORY": "/run/p2psync:/run/other"}


@pytest.mark.parametrize(
    ("environ", "home", "place"),
    [
        (USER, "/home/anna/.local/share/p2psync", "/run/user/1000/p2psync/control.sock"),
        (USER | {"XDG_DATA_HOME": "/data"}, "/data/p2psync", "/run/user/1000/p2psync/control.sock"),
        (USER | {"XDG_DATA_HOME": "data"}, "/home/anna/.local/share/p2psync", "/run/user/1000/p2psync/control.sock"),
        ({"HOME": "/home/anna"}, "/home/anna/.local/share/p2psync", "/home/anna/.local/share/p2psync/control.sock"),
        (SERVICE, "/var/lib/p2psync", "/run/p2psync/control.sock"),
        (USER | {"P2PSYNC_HOME": "/srv/state"}, "/srv/state", "/srv/state/control.sock"),
        (SERVICE | {"P2PSYNC_HOME": "/srv/state"}, "/srv/state", "/srv/state/control.sock"),
        (USER | {"P2PSYNC_HOME": "/srv/state", "P2PSYNC_SOCKET": "/tmp/s"}, "/srv/state", "/tmp/s"),
    ],
)
def test_defaults(environ: dict[str, str], home: str, place: str) -> None:
    assert default_home(environ) == Path(home)
    assert default_socket(environ) == Path(place)


@pytest.mark.parametrize(
    ("environ", "home", "place"),
    [
        (USER, None, "/home/anna/.cache/p2psync/witness"),
        (USER | {"XDG_CACHE_HOME": "/cache"}, None, "/cache/p2psync/witness"),
        (SERVICE | {"CACHE_DIRECTORY": "/var/cache/p2psync"}, None, "/var/cache/p2psync/witness"),
        (SERVICE | {"CACHE_DIRECTORY": "/var/cache/p2psync"}, "/srv/state", "/srv/.state.witness"),
        (USER | {"P2PSYNC_HOME": "/srv/state"}, None, "/srv/.state.witness"),
    ],
)
def test_the_witness_is_outside_the_state(environ: dict[str, str], home: str | None, place: str) -> None:
    assert default_witness(environ, Path(home) if home else None) == Path(place)
    assert default_home(environ) not in Path(place).parents


def test_a_home_that_is_named_has_its_socket_inside() -> None:
    assert default_socket(USER, Path("/tmp/a")) == Path("/tmp/a/control.sock")
    assert default_socket(SERVICE, Path("/tmp/a")) == Path("/tmp/a/control.sock")
    assert default_socket(USER | {"P2PSYNC_SOCKET": "/tmp/s"}, Path("/tmp/a")) == Path("/tmp/s")


def test_a_command_finds_the_system_service_when_the_user_runs_no_daemon() -> None:
    own = default_socket(USER)
    assert client_socket(USER, exists=lambda path: path == SYSTEM_SOCKET) == SYSTEM_SOCKET
    assert client_socket(USER, exists=lambda path: True) == own
    assert client_socket(USER, exists=lambda path: False) == own


def test_what_was_named_is_never_exchanged_for_the_system_service() -> None:
    def only_the_system_socket(path: Path) -> bool:
        return path == SYSTEM_SOCKET

    assert client_socket(USER, Path("/tmp/a"), exists=only_the_system_socket) == Path("/tmp/a/control.sock")
    assert client_socket(USER | {"P2PSYNC_SOCKET": "/tmp/s"}, exists=only_the_system_socket) == Path("/tmp/s")
    assert client_socket(USER | {"P2PSYNC_HOME": "/tmp/b"}, exists=only_the_system_socket) == Path("/tmp/b/control.sock")


def test_a_short_path_is_its_own_address() -> None:
    with socket_address(Path("/tmp/control.sock")) as address:
        assert address == "/tmp/control.sock"


def test_a_long_path_can_be_bound_and_reached(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    path = folder / "control.sock"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        with socket_address(path) as address:
            server.bind(address)
        server.listen()
        with socket_address(path) as address:
            client.connect(address)
    assert path.is_socket()


def test_a_name_that_no_socket_can_have_is_refused_in_a_sentence(tmp_path: Path) -> None:
    open_before = os.listdir("/proc/self/fd")
    with pytest.raises(SocketPathTooLong, match="Choose a shorter one with --socket"), socket_address(tmp_path / ("s" * 120)):
        pass
    assert os.listdir("/proc/self/fd") == open_before
