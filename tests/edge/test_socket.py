"""The status socket against real clients: polite ones, rude ones, stuck ones, and ones that may not."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from p2psync.edge.caller import groups_of, may_act
from p2psync.edge.http import Answer, Download, Limits, Reply, Request, Stream
from p2psync.edge.socket import NoSuchGroup, SocketImpossible, SocketInUse, SocketPlaceTaken, serve
from p2psync.values.errors import BadName, MandateHalted

SECOND = 1.0


class Office:
    """A handler that answers a few paths and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.cancelled = trio.Event()
        self.closed = trio.Event()
        self.go_on = trio.Event()

    async def __call__(self, request: Request) -> Answer:
        self.asked.append(request)
        match request.path:
            case "/metrics":
                return Reply(200, "p2psync_files 3\n")
            case "/v1/refused":
                raise BadName(name="x", why="it is empty")
            case "/v1/halted":
                raise MandateHalted(why="many files vanished")
            case "/v1/broken":
                raise ZeroDivisionError
            case "/v1/slow":
                try:
                    await self.go_on.wait()
                finally:
                    self.cancelled.set()
            case "/v1/events":
                return Stream(self.events())
            case "/v1/content":
                return Download(int(request.query["size"]), self.pieces())
            case "/v1/flood":
                return Stream(self.flood())
        return Reply(200, {"path": request.path, "body": dict(request.body), "query": dict(request.query)})

    async def events(self) -> AsyncGenerator[tuple[str, Any], None]:
        try:
            yield "changed", {"mandate": None}
            await self.go_on.wait()
            yield "changed", {"mandate": "ab"}
        finally:
            self.closed.set()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        try:
            for number in range(100):
                yield bytes([number]) * 10_000
        finally:
            self.closed.set()

    async def flood(self) -> AsyncGenerator[tuple[str, Any], None]:
        try:
            while True:
                yield "changed", {"padding": "x" * 10_000}
        finally:
            self.closed.set()


@asynccontextmanager
async def open_office(path: Path, office: Office | None = None, **options: Any) -> AsyncIterator[Office]:
    office = office or Office()
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda **kw: serve(path, office, **options, **kw))
        yield office
        nursery.cancel_scope.cancel()


async def connect(path: Path) -> trio.SocketStream:
    return await trio.open_unix_socket(path)


async def say(path: Path, data: bytes) -> bytes:
    """Everything that is answered to ``data``."""
    async with await connect(path) as stream:
        with trio.fail_after(5):
            await stream.send_all(data)
            return await rest(stream)


async def rest(stream: trio.SocketStream) -> bytes:
    answer = b""
    try:
        async for part in stream:
            answer += part
    except trio.BrokenResourceError:
        pass
    return answer


async def ask(path: Path, method: str, target: str, body: bytes = b"", head: str = "") -> tuple[int, Any]:
    answer = await say(path, f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body)
    return parsed(answer)


def parsed(answer: bytes) -> tuple[int, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    text = body.decode()
    return int(head.split()[1]), json.loads(text) if b"application/json" in head else text


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


# -- what a client gets


async def test_reading_is_answered_with_the_decoded_query(path: Path) -> None:
    async with open_office(path) as office:
        status, body = await ask(path, "GET", "/v1/status?mandate=Caf%C3%A9%20%26%20Fils")
    assert (status, body["query"]) == (200, {"mandate": "Café & Fils"})
    assert office.asked[0].caller.uid == os.getuid()
    assert office.asked[0].caller.pid == os.getpid()
    assert office.asked[0].caller.user == ""


async def test_an_act_brings_its_body_and_its_users_name(path: Path) -> None:
    async with open_office(path) as office:
        status, body = await ask(path, "POST", "/v1/create", '{"name": "Dupont", "paths": ["/é"]}'.encode())
    assert (status, body["body"]) == (200, {"name": "Dupont", "paths": ["/é"]})
    assert office.asked[0].caller.user


async def test_text_goes_out_as_text(path: Path) -> None:
    async with open_office(path):
        answer = await say(path, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"text/plain" in answer
    assert answer.endswith(b"\r\n\r\np2psync_files 3\n")


async def test_a_head_gets_no_body_and_other_methods_a_refusal(path: Path) -> None:
    async with open_office(path) as office:
        answer = await say(path, b"HEAD /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
        status, body = await ask(path, "DELETE", "/v1/status")
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert answer.endswith(b"\r\n\r\n")
    assert (status, body["error"]["code"]) == (405, "no-such-method")
    assert office.asked == []


async def test_errors_of_ours_become_refusals_with_code_and_sentence(path: Path) -> None:
    async with open_office(path):
        assert await ask(path, "GET", "/v1/refused") == (
            400,
            {"error": {"code": "bad-name", "message": "The name “x” cannot be used: it is empty. Choose another one."}},
        )
        status, body = await ask(path, "POST", "/v1/halted")
    assert (status, body["error"]["code"]) == (409, "mandate-halted")


async def test_a_bug_is_logged_and_costs_one_answer(path: Path, expect_errors: set[str]) -> None:
    expect_errors.add("p2psync.edge.socket")
    async with open_office(path):
        status, body = await ask(path, "POST", "/v1/broken")
        assert (status, body["error"]["code"]) == (500, "internal")
        assert (await ask(path, "GET", "/v1/status"))[0] == 200


async def test_a_request_may_come_byte_by_byte(path: Path) -> None:
    async with open_office(path), await connect(path) as stream:
        for byte in b'POST /v1/create HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n{"a": 1}':
            await stream.send_all(bytes([byte]))
        assert parsed(await rest(stream))[1]["body"] == {"a": 1}


async def test_curls_question_before_a_long_body_is_answered(path: Path) -> None:
    async with open_office(path), await connect(path) as stream:
        await stream.send_all(b"POST /v1/create HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 100 ")
        await stream.send_all(b"{}")
        assert parsed(await rest(stream))[0] == 200


async def test_a_client_that_has_said_its_last_word_still_gets_the_answer(path: Path) -> None:
    async with open_office(path) as office, await connect(path) as stream:
        await stream.send_all(b"GET /v1/slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await stream.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        office.go_on.set()
        assert parsed(await rest(stream))[0] == 200


async def test_reading_is_given_up_when_the_client_goes(path: Path) -> None:
    async with open_office(path) as office:
        async with await connect(path) as stream:
            await stream.send_all(b"POST /v1/wait HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        async with await connect(path) as stream:
            await stream.send_all(b"GET /v1/slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(SECOND):
            await office.cancelled.wait()


async def test_an_act_is_carried_through_when_the_client_goes(path: Path) -> None:
    async with open_office(path) as office:
        async with await connect(path) as stream:
            await stream.send_all(b"POST /v1/slow HTTP/1.1\r\nHost: x\r\n\r\n")
            while not office.asked:
                await trio.testing.wait_all_tasks_blocked(0.01)
        await trio.testing.wait_all_tasks_blocked()
        assert not office.cancelled.is_set()
        office.go_on.set()
        with trio.fail_after(SECOND):
            await office.cancelled.wait()


# -- bad input


GARBAGE = [
    b"\x00\xff\x16\x03\x01 hello\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\n\r\n",
    b"GET http://evil/v1/status HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/status?mandate=%FF HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/status?a=1&a=2 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/status?" + b"&".join(b"a%d=1" % n for n in range(20)) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v1/create HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
    b"POST /v1/create HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /v1/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]",
    b'POST /v1/create HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n{"a":"\xff"}',
    b'POST /v1/create HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"a":NaN}',
    b"POST /v1/create HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"[" * 100_000,
    b"POST /v1/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
]


@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
async def test_garbage_is_refused_and_reaches_no_handler(path: Path, data: bytes) -> None:
    async with open_office(path) as office:
        status, body = parsed(await say(path, data))
        assert 400 <= status < 500
        assert body["error"]["message"].endswith(".")
        assert office.asked == []
        assert (await ask(path, "GET", "/v1/status"))[0] == 200


async def test_a_huge_head_is_refused(path: Path) -> None:
    async with open_office(path):
        status, body = parsed(await say(path, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 40_000))
    assert (status, body["error"]["code"]) == (431, "head-too-large")


async def test_a_body_that_announces_too_much_is_refused_unread(path: Path) -> None:
    async with open_office(path) as office:
        answer = await say(path, b"POST /v1/create HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n")
    assert parsed(answer)[0] == 413
    assert office.asked == []


async def test_a_body_that_grows_beyond_the_limit_is_refused(path: Path) -> None:
    async with open_office(path, limits=Limits(body=1000)):
        chunk = b"%x\r\n" % 600 + b" " * 600 + b"\r\n"
        answer = await say(path, b"POST /v1/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 2)
    assert parsed(answer)[0] == 413


async def test_a_body_as_long_as_is_allowed_arrives(path: Path) -> None:
    body = json.dumps({"a": "x" * (1024 * 1024 - 9)}).encode()
    assert len(body) == 1024 * 1024
    async with open_office(path) as office:
        assert (await ask(path, "POST", "/v1/create", body))[0] == 200
    assert len(office.asked[0].body["a"]) == 1024 * 1024 - 9


@pytest.mark.parametrize("beginning", [b"GET /v1/sta", b"POST /v1/create HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"])
async def test_a_request_that_does_not_come_to_an_end_is_ended(path: Path, beginning: bytes) -> None:
    async with open_office(path, limits=Limits(request_s=0.05)) as office:
        assert parsed(await say(path, beginning))[0] == 408
    assert office.asked == []


async def test_a_request_cut_off_is_forgotten(path: Path) -> None:
    async with open_office(path) as office:
        for beginning in (b"", b"GET /v1/sta", b"POST /v1/create HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"):
            async with await connect(path) as stream:
                await stream.send_all(beginning)
        assert (await ask(path, "GET", "/v1/status"))[0] == 200
    assert len(office.asked) == 1


async def test_one_client_too_many_is_turned_away_and_the_others_stay(path: Path) -> None:
    async with open_office(path, limits=Limits(clients=2)) as office:
        async with await connect(path) as first, await connect(path) as second:
            for stream in (first, second):
                await stream.send_all(b"GET /v1/slow HTTP/1.1\r\nHost: x\r\n\r\n")
            while len(office.asked) < 2:
                await trio.testing.wait_all_tasks_blocked(0.01)
            status, body = await ask(path, "GET", "/v1/status")
            assert (status, body["error"]["code"]) == (503, "busy")
            office.go_on.set()
            assert [parsed(await rest(stream))[0] for stream in (first, second)] == [200, 200]
        assert (await ask(path, "GET", "/v1/status"))[0] == 200


# -- events


async def next_line(stream: trio.SocketStream, word: bytes) -> bytes:
    seen = b""
    with trio.fail_after(5):
        while word not in seen:
            part = await stream.receive_some()
            assert part, seen
            seen += part
    return seen


async def test_events_come_as_they_happen(path: Path) -> None:
    async with open_office(path) as office, await connect(path) as stream:
        await stream.send_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        first = await next_line(stream, b"\n\n")
        assert b"text/event-stream" in first
        assert b'event: changed\ndata: {"mandate": null}\n\n' in first
        office.go_on.set()
        assert b'data: {"mandate": "ab"}' in await rest(stream)
        assert office.closed.is_set()


async def test_events_end_when_the_listener_goes(path: Path) -> None:
    async with open_office(path) as office:
        async with await connect(path) as stream:
            await stream.send_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
            await next_line(stream, b"\n\n")
        with trio.fail_after(SECOND):
            await office.closed.wait()


async def test_a_silent_stream_gives_signs_of_life(path: Path) -> None:
    async with open_office(path, limits=Limits(heartbeat_s=0.01)), await connect(path) as stream:
        await stream.send_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        await next_line(stream, b": still here\n\n")


async def test_listeners_never_take_every_place(path: Path) -> None:
    async with open_office(path, limits=Limits(streams=1)), await connect(path) as stream:
        await stream.send_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        await next_line(stream, b"\n\n")
        assert (await ask(path, "GET", "/v1/events"))[0] == 503
        assert (await ask(path, "GET", "/v1/status"))[0] == 200


async def test_a_listener_that_reads_nothing_is_dropped(path: Path) -> None:
    async with open_office(path, limits=Limits(send_s=0.05)) as office, await connect(path) as stream:
        await stream.send_all(b"GET /v1/flood HTTP/1.1\r\nHost: x\r\n\r\n")
        with trio.fail_after(5):
            await office.closed.wait()


WHOLE = b"".join(bytes([number]) * 10_000 for number in range(100))


async def test_a_file_comes_as_it_is(path: Path) -> None:
    async with open_office(path) as office:
        head, _, body = (await say(path, b"GET /v1/content?size=1000000 HTTP/1.1\r\nHost: x\r\n\r\n")).partition(b"\r\n\r\n")
        assert b"Content-Length: 1000000" in head and b"application/octet-stream" in head
        assert body == WHOLE
        assert office.closed.is_set()


async def test_a_file_that_ends_early_is_cut_short(path: Path) -> None:
    async with open_office(path):
        head, _, body = (await say(path, b"GET /v1/content?size=1000001 HTTP/1.1\r\nHost: x\r\n\r\n")).partition(b"\r\n\r\n")
        assert b"Content-Length: 1000001" in head
        assert body == WHOLE


async def test_who_does_not_take_a_file_is_left(path: Path) -> None:
    async with open_office(path, limits=Limits(send_s=0.05)) as office, await connect(path) as stream:
        await stream.send_all(b"GET /v1/content?size=1000000 HTTP/1.1\r\nHost: x\r\n\r\n")
        with trio.fail_after(5):
            await office.closed.wait()


async def test_a_stuck_listener_does_not_hold_up_a_stop(path: Path) -> None:
    with trio.fail_after(5):
        async with open_office(path) as office:
            stream = await connect(path)
            await stream.send_all(b"GET /v1/flood HTTP/1.1\r\nHost: x\r\n\r\n")
            while not office.asked:
                await trio.testing.wait_all_tasks_blocked(0.01)
            await trio.testing.wait_all_tasks_blocked(0.02)
    assert office.closed.is_set()
    assert not path.exists()
    await stream.aclose()


# -- the socket file


async def test_the_socket_is_private_and_gone_afterwards(path: Path) -> None:
    async with open_office(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert [entry.name for entry in path.parent.iterdir()] == ["control.sock"]
    assert list(path.parent.iterdir()) == []


async def test_with_a_group_its_members_may_open_it(path: Path) -> None:
    import grp

    group = grp.getgrgid(os.getgid())
    async with open_office(path, group=group.gr_name):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.stat().st_gid == group.gr_gid


async def test_a_group_that_does_not_exist_is_named(path: Path) -> None:
    with pytest.raises(NoSuchGroup, match="no-such-group"):
        await serve(path, Office(), group="no-such-group")


async def test_a_stale_socket_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with open_office(path):
        assert (await ask(path, "GET", "/v1/status"))[0] == 200


async def test_a_living_socket_is_left_to_its_daemon(path: Path) -> None:
    async with open_office(path):
        with pytest.raises(SocketInUse):
            await serve(path, Office())
        assert (await ask(path, "GET", "/v1/status"))[0] == 200


async def test_another_file_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("books")
    with pytest.raises(SocketPlaceTaken):
        await serve(path, Office())
    assert path.read_text() == "books"


async def test_an_impossible_place_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SocketImpossible, match="Choose another place"):
        await serve(tmp_path / "file" / "control.sock", Office())


async def test_a_socket_that_somebody_else_put_there_since_is_not_removed(path: Path) -> None:
    async with open_office(path):
        path.unlink()
        path.write_text("not ours")
    assert path.read_text() == "not ours"


async def test_a_long_path_works(tmp_path: Path) -> None:
    path = tmp_path / ("folder" * 20) / "control.sock"
    async with open_office(path):
        short = tmp_path / "link"
        short.symlink_to(path.parent)
        assert (await ask(short / path.name, "GET", "/v1/status"))[0] == 200
    assert list(path.parent.iterdir()) == []


# -- who may act


@pytest.mark.parametrize(
    ("uid", "own", "group", "groups", "may"),
    [
        (1000, 1000, None, (), True),
        (0, 1000, None, (), True),
        (1001, 1000, None, (100,), False),
        (1001, 1000, 100, (100, 4), True),
        (1001, 1000, 100, (4,), False),
        (1001, 0, 100, (), False),
    ],
)
def test_who_may_act(uid: int, own: int, group: int | None, groups: tuple[int, ...], may: bool) -> None:
    assert may_act(uid, own=own, group=group, groups=groups) is may


def test_groups_are_what_the_machine_says() -> None:
    assert os.getgid() in groups_of(os.getuid()) or os.getuid() != os.geteuid()
    assert groups_of(4_000_000_000) == frozenset()


STRANGER = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
s.sendall(sys.argv[2].encode() + b" HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
while part := s.recv(65536): sys.stdout.write(part.decode())
"""


@pytest.fixture
def open_place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder) / "control.sock"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else for a moment")
async def test_a_stranger_may_read_what_he_can_open_and_change_nothing(open_place: Path) -> None:
    async def as_nobody(request: str) -> str:
        ran = await trio.run_process([sys.executable, "-c", STRANGER, str(open_place), request], capture_stdout=True)
        return str(ran.stdout.decode())

    async with open_office(open_place, mode=0o666) as office:
        assert " 200 " in await as_nobody("GET /v1/status")
        assert " 200 " in await as_nobody("POST /v1/ticket")
        refused = await as_nobody("POST /v1/create")
    assert " 403 " in refused
    assert "obeys the user who runs it only" in refused.encode().decode("unicode-escape")
    assert [request.path for request in office.asked] == ["/v1/status", "/v1/ticket"]
    assert office.asked[0].caller.uid == 65534
