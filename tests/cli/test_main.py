"""The program as a whole: options, exit codes, signals, pipes, and how fast it starts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import p2psync as package
from p2psync.cli.main import COMMANDS, main

ROOT = Path(package.__file__).parent.parent
PROGRAM = [sys.executable, "-c", "import sys; from p2psync.cli.main import main; sys.exit(main())"]
CALM = {"device": {"id": "cd", "name": "Compta-PC"}, "version": "1", "port": 1, "problems": [], "mandates": []}


def start(*words: str | Path, stdout: Any = subprocess.PIPE, env: Any = None, encoding: str = "utf-8") -> subprocess.Popen[str]:
    environ = os.environ | {"PYTHONPATH": str(ROOT)} | (env or {})
    return subprocess.Popen([*PROGRAM, *map(str, words)], env=environ, stdout=stdout, stderr=subprocess.PIPE, encoding=encoding)


def finish(process: subprocess.Popen[str]) -> SimpleNamespace:
    out, err = process.communicate(timeout=10)
    return SimpleNamespace(code=process.returncode, out=out, err=err)


@pytest.fixture
def mute(tmp_path: Path) -> Iterator[Any]:
    """Starts servers that say one thing, whatever they are asked, and hang up."""
    opened: list[tuple[socket.socket, threading.Thread]] = []

    def serve(answer: bytes) -> Path:
        path = tmp_path / f"mute{len(opened)}.sock"
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen()

        def one_client() -> None:
            client, _ = server.accept()
            with client:
                client.recv(65536)
                client.sendall(answer)

        thread = threading.Thread(target=one_client)
        thread.start()
        opened.append((server, thread))
        return path

    yield serve
    for server, thread in opened:
        thread.join(5)
        server.close()


# -- options and usage


def test_the_commands_are_those_of_the_contract(p2psync) -> None:
    contract = """run status create attach detach share mandates invite promote ticket subscribe participants conflicts resolve history
        restore wait confirm why doctor verify"""
    assert set(COMMANDS) == set(contract.split())
    said = p2psync("--help")
    assert said.code == 0
    assert all(f"  {name} " in said.out or f"  {name}\n" in said.out for name in COMMANDS)
    assert p2psync("--version").out == f"p2psync {package.__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["frobnicate"],
        ["doctor", "Dupont"],
        ["attach", "Dupont"],
        ["status", "--frobnicate"],
        ["status", "--js"],
        ["resolve", "Dupont", "a.cre"],
        ["resolve", "Dupont", "a.cre", "--keep", "ours"],
        ["invite", "Dupont"],
        ["invite", "Dupont", "--for", "Anna", "--role", "owner"],
        ["invite", "Dupont", "--for", "Anna", "--expires", "soon"],
        ["wait", "--timeout", "-1"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2_and_asks_nothing(daemon, p2psync, words: list[str]) -> None:
    said = p2psync(*words)
    assert said.code == 2
    assert "usage: p2psync" in said.err
    assert daemon.asked == []


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(p2psync, command: str) -> None:
    said = p2psync(command, "--help")
    assert said.code == 0
    assert "--socket PATH" in said.out


def test_options_may_stand_before_or_after_the_command(daemon, p2psync, monkeypatch, tmp_path) -> None:
    daemon.answers["/v1/status"] = CALM
    monkeypatch.delenv("P2PSYNC_SOCKET")
    place = daemon.socket
    assert p2psync("--socket", place, "status").code == 0
    assert p2psync("status", "--socket", place).code == 0
    assert p2psync("--home", place.parent, "status").code == 0
    assert p2psync("--debug", "status", "--home", "..").code == 0
    assert p2psync("--home", "/nowhere", "status", "--home", place.parent).code == 0
    assert p2psync("status").code == 3
    monkeypatch.setenv("P2PSYNC_HOME", str(tmp_path))
    assert p2psync("status").code == 0


# -- no daemon, or not one of ours


def test_without_a_daemon_it_is_3_and_says_how_to_start_one(p2psync, tmp_path) -> None:
    said = p2psync("status", "--home", tmp_path / "my state")
    assert (said.code, said.out) == (3, "")
    said.err = said.err.replace(str(tmp_path), "TMP")
    assert said.err == (
        "p2psync: No p2psync daemon answers at “TMP/my state/control.sock”. Start it with: p2psync run --home 'TMP/my state'\n"
    )


def test_a_socket_without_a_daemon_is_3(p2psync, tmp_path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))
    (tmp_path / "file").write_text("")
    for place in ("control.sock", "file", "file/control.sock"):
        for words in (["status"], ["share", "x"], ["wait"], ["status", "--watch"]):
            said = p2psync(*words, "--socket", tmp_path / place)
            assert (said.code, said.err.count("\n")) == (3, 1)
            assert "No p2psync daemon answers" in said.err


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
def test_a_daemon_that_falls_silent_is_3(p2psync, mute, answer: bytes) -> None:
    said = p2psync("status", "--socket", mute(answer))
    assert (said.code, said.err) == (3, "p2psync: The p2psync daemon does not answer. Try again; if it stays so, restart it.\n")
    said = p2psync("share", "x", "--socket", mute(answer))
    assert said.code == 3
    assert "whether what you asked for was done" in said.err


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 302 Found\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_another_program_behind_the_socket_is_3(p2psync, mute, answer: bytes) -> None:
    said = p2psync("status", "--socket", mute(answer))
    assert said.code == 3
    assert "does not speak as a p2psync daemon does" in said.err


def test_a_long_path_is_no_obstacle(daemon, p2psync, tmp_path) -> None:
    daemon.answers["/v1/status"] = CALM
    folder = tmp_path / ("long" * 25)
    folder.symlink_to(tmp_path)
    assert p2psync("status", "--socket", folder / "control.sock").code == 0
    said = p2psync("status", "--socket", folder / ("s" * 120))
    assert said.code == 1
    assert "too long for a socket" in said.err


def test_a_request_that_is_too_long_is_refused_with_a_sentence(daemon, p2psync) -> None:
    said = p2psync("attach", "Dupont", *["/" + "x" * 100_000] * 12)
    assert (said.code, said.out) == (1, "")
    assert "The request is longer than" in said.err
    assert daemon.asked == []


AS_SOMEBODY = (
    "import os, shutil, sys; from p2psync.cli.main import main; os.setgroups([]); os.setuid(int(sys.argv[1])); sys.exit(main(sys.argv[2:]))"
)
SERVER_OF_NOBODY = """
import os, socket, sys
os.setgroups([]); os.setuid(65534)
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); os.chmod(sys.argv[1], 0o666); s.listen()
print("ready", flush=True)
c, _ = s.accept()
print(len(c.recv(65536)))
"""


def as_somebody(uid: int, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", AS_SOMEBODY, str(uid), *map(str, words)]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, encoding="utf-8", timeout=10)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else for a moment")
def test_whoever_may_not_open_the_socket_is_told_so_with_1(daemon) -> None:
    said = as_somebody(65534, "status", "--socket", daemon.socket)
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr.startswith("p2psync: You may not use the p2psync daemon")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else for a moment")
def test_nothing_is_sent_to_another_users_program() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        place = f"{folder}/control.sock"
        server = subprocess.Popen([sys.executable, "-c", SERVER_OF_NOBODY, place], stdout=subprocess.PIPE, encoding="utf-8")
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        said = as_somebody(65533, "share", "Dupont", "--socket", place)
        out, _ = server.communicate(timeout=10)
    assert said.returncode == 1
    assert "not your p2psync daemon; nothing was sent to it" in said.stderr
    assert out == "0\n"


# -- the unexpected


def test_a_bug_is_a_sentence_and_debug_shows_where(daemon, p2psync) -> None:
    daemon.answers["/v1/mandates"] = {"mandates": [{}]}
    said = p2psync("mandates")
    assert said.code == 1
    assert said.err.startswith("p2psync: Something went wrong inside p2psync (KeyError: 'name').")
    assert said.err.count("\n") == 1
    assert "Traceback" in p2psync("mandates", "--debug").err
    assert "Traceback" in p2psync("--debug", "status").err


def test_an_interrupt_is_quiet(monkeypatch, p2psync) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("p2psync.cli.commands.status.perform", interrupted)
    assert vars(p2psync("status")) == {"code": 130, "out": "", "err": ""}


def test_a_reader_that_has_had_enough_is_no_error(daemon) -> None:
    daemon.answers["/v1/status"] = CALM | {"problems": [{"message": "x" * 1000}] * 1000}
    process = start("status", "--json")
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(10) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_full_disk_behind_the_output_is_a_sentence(daemon, buffered: str) -> None:
    daemon.answers["/v1/status"] = CALM
    with open("/dev/full", "w") as full:
        said = finish(start("status", stdout=full, env={"PYTHONUNBUFFERED": buffered}))
    assert said.code == 1
    assert (
        said.err
        == "p2psync: What there was to say could not be written: no space left on device. Make room, or have it written elsewhere.\n"
    )


def test_an_old_terminal_gets_what_it_can_show(daemon) -> None:
    daemon.answers["/v1/status"] = CALM
    said = finish(start("status", env={"PYTHONIOENCODING": "latin-1"}, encoding="latin-1"))
    assert said.code == 0
    assert "?Compta-PC?" in said.out


# -- watch


def test_watch_prints_every_change_and_ends_quietly(daemon) -> None:
    daemon.answers["/v1/status"] = CALM
    process = start("status", "--watch", "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == CALM
    daemon.answers["/v1/status"] = CALM | {"port": 2}
    daemon.change()
    assert json.loads(process.stdout.readline())["port"] == 2
    process.send_signal(signal.SIGINT)
    said = finish(process)
    assert (said.code, said.out, said.err) == (0, "", "")


def test_watch_without_a_terminal_prints_one_status_after_the_other(daemon) -> None:
    daemon.answers["/v1/status"] = CALM
    process = start("status", "--watch")
    assert process.stdout is not None
    assert process.stdout.readline() == "“Compta-PC”, 0 mandates\n"
    process.send_signal(signal.SIGINT)
    said = finish(process)
    assert (said.code, said.err) == (0, "")
    assert "\x1b" not in said.out


def test_watch_ends_with_3_when_the_daemon_stops(daemon) -> None:
    daemon.answers["/v1/status"] = CALM
    process = start("status", "--watch", "--json")
    assert process.stdout is not None
    process.stdout.readline()
    daemon.stop()
    said = finish(process)
    assert said.code == 3
    assert said.err.count("\n") == 1


# -- run


def test_run_hands_its_options_to_the_daemon(monkeypatch) -> None:
    seen: dict[str, Any] = {}

    class Config:
        @staticmethod
        def resolve(environ: Any, **options: Any) -> dict[str, Any]:
            assert environ is os.environ
            return options

    def daemon(config: dict[str, Any]) -> int:
        seen.update(config)
        return 0

    monkeypatch.setitem(sys.modules, "p2psync.daemon.config", SimpleNamespace(Config=Config))
    monkeypatch.setitem(sys.modules, "p2psync.daemon.run", SimpleNamespace(main=daemon))
    assert main(["run"]) == 0
    assert seen == {"home": None, "socket": None, "listen": None, "interfaces": None, "peers": (), "mdns": True, "keep": None}
    words = "--home /h run --socket /s --listen 127.0.0.1:0 --interface lo --interface eth0 --peer a:1 --peer b:2 --no-mdns --keep 7d,1y,2y"
    assert main(words.split()) == 0
    assert seen == {
        "home": Path("/h"),
        "socket": Path("/s"),
        "listen": "127.0.0.1:0",
        "interfaces": ("lo", "eth0"),
        "peers": ("a:1", "b:2"),
        "mdns": False,
        "keep": "7d,1y,2y",
    }


# -- speed


def test_no_command_but_run_loads_the_daemon() -> None:
    code = "import sys, p2psync.cli.main; print(*sys.modules)"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}  # which loads modules of its own
    environ["PYTHONPATH"] = str(ROOT)
    loaded = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    modules = set(loaded.stdout.split())
    heavy = {"trio", "nacl", "h11", "zeroconf", "watchdog", "msgpack", "blake3", "sqlite3", "asyncio", "zstandard", "ifaddr", "pyfastcdc"}
    assert modules & heavy == set()
    assert not [name for name in modules if name.startswith(("p2psync.daemon", "p2psync.edge", "p2psync.engine"))]
