"""The command line against the real socket server, behind which stands a handler that says what a test wants it to say."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from p2psync.cli.main import main
from p2psync.edge.http import Answer as HttpAnswer
from p2psync.edge.http import Download, Reply, Request, Stream, refusal
from p2psync.edge.socket import serve

Answer = Mapping[str, Any] | Reply | Download | Exception | Callable[[Request], Any]


class FakeDaemon:
    """Answers each path with what ``answers`` holds for it, in a thread of its own, and remembers the requests."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.answers: dict[str, Answer] = {}
        self.asked: list[Request] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main,), name="fake daemon")

    @property
    def acts(self) -> list[tuple[str, dict[str, Any]]]:
        """The path and body of every POST so far."""
        return [(request.path, dict(request.body)) for request in self.asked if request.method == "POST"]

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(5)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._token.run_sync_soon(self._stop.set)
            self._thread.join(5)

    def change(self) -> None:
        """Tell everybody who listens that something has changed."""
        trio.from_thread.run_sync(self._changed, trio_token=self._token)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stop = trio.Event()
        self._listeners: set[trio.MemorySendChannel[tuple[str, Any]]] = set()
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda **kw: serve(self.socket, self._handle, **kw))
            self._ready.set()
            await self._stop.wait()
            nursery.cancel_scope.cancel()

    async def _handle(self, request: Request) -> HttpAnswer:
        self.asked.append(request)
        if request.path == "/v1/events":
            return Stream(self._events())
        answer = self.answers.get(request.path, refusal(404, "no-such-path", "Nobody answers here."))
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Reply | Download) else Reply(200, dict(answer))

    async def _events(self) -> AsyncGenerator[tuple[str, Any], None]:
        send, receive = trio.open_memory_channel[tuple[str, Any]](100)
        self._listeners.add(send)
        try:
            yield "changed", {"mandate": None}
            async for event in receive:
                yield event
        finally:
            self._listeners.discard(send)

    def _changed(self) -> None:
        for listener in self._listeners:
            listener.send_nowait(("changed", {"mandate": None}))


@dataclass
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    """A running fake, and an environment and current folder in which ``p2psync`` finds it."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for variable in ("P2PSYNC_HOME", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "COLUMNS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    fake = FakeDaemon(tmp_path / "control.sock")
    monkeypatch.setenv("P2PSYNC_SOCKET", str(fake.socket))
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def p2psync(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run the command line in this process, and return what it said."""

    def run(*words: str | Path) -> Said:
        try:
            code = main([str(word) for word in words])
        except SystemExit as e:
            code = int(e.code or 0)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run
