"""The service manager hears what it asks for, on either kind of socket; without one, nothing happens."""

import os
import socket

import pytest
import trio
import trio.testing

from p2psync.edge.notify import Notifier


@pytest.fixture(params=["file", "abstract"])
def manager(request, tmp_path):
    name = str(tmp_path / "notify") if request.param == "file" else f"@p2psync-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0", 1))
        listening.setblocking(False)
        yield listening, {"NOTIFY_SOCKET": name}


def test_ready_status_stopping(manager):
    listening, environ = manager
    notifier = Notifier(environ)
    notifier.ready("3 mandates")
    notifier.status("all the same\nREADY=0")
    notifier.stopping()
    assert [listening.recv(4096) for _ in range(3)] == [b"READY=1\nSTATUS=3 mandates", b"STATUS=all the same READY=0", b"STOPPING=1"]


async def test_signs_of_life_come_twice_as_often_as_asked(manager, autojump_clock):
    listening, environ = manager
    notifier = Notifier(environ | {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())})
    assert notifier.watchdog_s == 15
    with trio.move_on_after(31):
        await notifier.keep_alive()
    assert [listening.recv(64) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    with pytest.raises(BlockingIOError):
        listening.recv(64)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "1000000"},
        {"NOTIFY_SOCKET": "/nowhere"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    ],
)
async def test_nobody_listens(environ):
    notifier = Notifier(environ)
    notifier.ready()
    notifier.status("fine")
    with trio.fail_after(1):
        await notifier.keep_alive()


def test_a_manager_that_does_not_read_holds_nobody_up(manager):
    _, environ = manager
    for _ in range(2000):
        Notifier(environ).status("busy")


@pytest.fixture
def autojump_clock():
    return trio.testing.MockClock(autojump_threshold=0)
