"""Whose turn it is: the table against the same rules told as a story, two sessions wired together, and whoever breaks the rules."""

from collections import deque
from collections.abc import Callable
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2psync.engine import messages as m
from p2psync.engine.encoding import KINDS, Message
from p2psync.engine.session import ABOUT_A_MANDATE, MAX_HANDLES, NEXT, LocalError, OutOfTurn, Session, State, rules
from p2psync.values.digest import Digest
from p2psync.values.keys import Secret
from p2psync.values.names import MandateId

ID = bytes(32)
GateKind = Literal["member", "guest"]

MAKE: dict[type[Message], Callable[[int], Message]] = {
    m.Hello: lambda _: m.Hello(1, 1, 0, 0, b"", "test"),
    m.Close: lambda _: m.Close(0),
    m.Ping: lambda _: m.Ping(bytes(8)),
    m.Pong: lambda _: m.Pong(bytes(8)),
    m.Open: lambda handle: m.Open(handle, bytes(16)),
    m.Join: lambda _: m.Join((), b"", b""),
    m.Welcome: lambda _: m.Welcome(MandateId(ID), (), ()),
    m.Pending: lambda _: m.Pending(),
    m.Refused: lambda _: m.Refused(1),
    m.Introduce: lambda _: m.Introduce(MandateId(ID), ()),
    m.Who: lambda _: m.Who(MandateId(ID)),
    m.Heads: lambda handle: m.Heads(handle, ()),
    m.Want: lambda handle: m.Want(handle, ()),
    m.Records: lambda handle: m.Records(handle, ()),
    m.Keys: lambda handle: m.Keys(handle, 1, Secret(ID)),
    m.WantChunks: lambda handle: m.WantChunks(handle, ()),
    m.Chunk: lambda handle: m.Chunk(handle, Digest(ID), b""),
    m.NoChunk: lambda handle: m.NoChunk(handle, Digest(ID)),
    m.ForkProof: lambda handle: m.ForkProof(handle, b"", b""),
    m.WantListing: lambda handle: m.WantListing(handle, Digest(ID), 0),
    m.Listing: lambda handle: m.Listing(handle, Digest(ID), 0, 1, b""),
    m.NoListing: lambda handle: m.NoListing(handle, Digest(ID)),
    m.ListingChange: lambda handle: m.ListingChange(handle, Digest(ID), Digest(ID), 0, 0, b""),
    m.Held: lambda handle: m.Held(handle, ID, 0, 0),
    m.Whereabouts: lambda handle: m.Whereabouts(handle, ()),
    m.Have: lambda handle: m.Have(handle, ()),
}
JOIN = MAKE[m.Join](0)
LIKELY = (m.Join, m.Welcome, m.Hello, m.Open, m.Heads, m.Chunk)
GATES: list[GateKind] = ["member", "guest"]
GATE = st.sampled_from(GATES)
MESSAGE = st.one_of(st.sampled_from(list(MAKE)), st.sampled_from(LIKELY)).flatmap(lambda kind: st.builds(MAKE[kind], st.integers(0, 2)))
STEPS = st.lists(st.tuples(st.booleans(), MESSAGE), max_size=40)


def legal(gate: GateKind, mine: list[Message], theirs: list[Message], message: Message) -> bool:
    """The rules once more, told from what both sides have said so far."""

    def said(by: list[Message], *kinds: type[Message]) -> bool:
        return any(isinstance(one, kinds) for one in by)

    decided = said(mine, m.Welcome, m.Refused)
    if said(mine, m.Close):
        return False
    if isinstance(message, m.Close | m.Ping | m.Pong):
        return True
    if isinstance(message, m.Join):
        return gate == "guest" and not said(mine + theirs, m.Join)
    if isinstance(message, m.Welcome | m.Pending | m.Refused):
        return said(theirs, m.Join) and not decided
    if gate == "guest" and not said(mine + theirs, m.Welcome):
        return False
    if isinstance(message, m.Hello):
        return not said(mine, m.Hello)
    if isinstance(message, m.Who | m.Introduce):
        return True
    opened = {one.handle for one in mine if isinstance(one, m.Open)}
    if isinstance(message, m.Open):
        return said(mine, m.Hello) and said(theirs, m.Hello) and message.handle not in opened
    return getattr(message, "handle", None) in opened


def test_every_kind_of_message_has_its_place() -> None:
    assert set(MAKE) == set(KINDS.values()) == {kind for _, kind in NEXT}
    assert {kind for kind in MAKE if hasattr(MAKE[kind](0), "handle")} == {*ABOUT_A_MANDATE, m.Open}


@given(GATE, STEPS)
def test_the_table_says_what_the_story_says(gate: GateKind, steps: list[tuple[bool, Message]]) -> None:
    sessions = [Session(gate), Session(gate)]
    said: list[list[Message]] = [[], []]
    for second, message in steps:
        us, them = int(second), int(not second)
        expected = legal(gate, said[us], said[them], message)
        assert sessions[us].may_send(message) == expected
        if not expected:
            with pytest.raises(OutOfTurn):
                sessions[them].received(message)
            with pytest.raises(LocalError):
                sessions[us].sent(message)
            break
        sessions[us].sent(message)
        sessions[them].received(message)
        said[us].append(message)
        assert (sessions[us].ours, sessions[us].theirs) == (sessions[them].theirs, sessions[them].ours)


@given(GATE, st.lists(st.tuples(st.booleans(), st.booleans(), MESSAGE), max_size=60))
@example(
    "guest", [(False, False, MAKE[m.Join](0)), (True, False, MAKE[m.Join](0)), (True, False, MAKE[m.Close](0)), (True, True, m.Pending())]
)
def test_who_keeps_the_rules_is_never_accused_whatever_crosses_on_the_way(gate: GateKind, steps: list[tuple[bool, bool, Message]]) -> None:
    """Two guests that ask each other are the one exception: both hold a ticket, and neither can admit."""
    sessions = [Session(gate), Session(gate)]
    under_way: list[deque[Message]] = [deque(), deque()]
    asked = [False, False]
    for second, arrives, message in steps:
        us, them = int(second), int(not second)
        if arrives and under_way[us]:
            arriving = under_way[us].popleft()
            if isinstance(arriving, m.Join) and asked[us]:
                with pytest.raises(OutOfTurn):
                    sessions[us].received(arriving)
                return
            sessions[us].received(arriving)
        elif sessions[us].may_send(message):
            sessions[us].sent(message)
            under_way[them].append(message)
            asked[us] |= isinstance(message, m.Join)


@given(GATE, st.lists(MESSAGE, max_size=20))
def test_whoever_breaks_the_rules_is_never_heard_again(gate: GateKind, messages: list[Message]) -> None:
    session = Session(gate)
    broken = False
    for message in messages:
        try:
            session.received(message)
            assert not broken
        except OutOfTurn:
            broken = True
            assert session.theirs is State.FAILED
    if session.ours is not State.CLOSED:
        session.sent(m.Close(m.CloseCode.PROTOCOL))  # we may still say why


def test_after_a_mistake_of_ours_nothing_more_is_said() -> None:
    session = Session("member")
    with pytest.raises(LocalError, match="Heads"):
        session.sent(m.Heads(1, ()))
    assert not any(session.may_send(make(1)) for make in MAKE.values())
    session.received(m.Hello(1, 1, 0, 0, b"", "test"))  # they did nothing wrong


def test_handles_belong_to_their_sender() -> None:
    session = met()
    session.sent(m.Open(1, bytes(16)))
    session.sent(m.Heads(1, ()))
    with pytest.raises(OutOfTurn, match="has not opened"):
        session.received(m.Heads(1, ()))


def test_a_session_has_so_many_mandates() -> None:
    session = met()
    for handle in range(MAX_HANDLES):
        session.received(m.Open(handle, bytes(16)))
    with pytest.raises(OutOfTurn, match="too many"):
        session.received(m.Open(MAX_HANDLES, bytes(16)))


def met() -> Session:
    session = Session("member")
    session.sent(MAKE[m.Hello](0))
    session.received(MAKE[m.Hello](0))
    return session


def test_a_guest_becomes_a_member_of_the_session() -> None:
    guest, host = Session("guest"), Session("guest")
    for sender, receiver, kind in (
        (guest, host, m.Join),
        (host, guest, m.Pending),
        (host, guest, m.Welcome),
        (guest, host, m.Hello),
        (host, guest, m.Hello),
        (guest, host, m.Open),
        (guest, host, m.Want),
    ):
        sender.sent(MAKE[kind](1))
        receiver.received(MAKE[kind](1))
    assert (guest.ours, host.ours) == (State.GREETED, State.GREETED)


def test_the_table_can_be_printed() -> None:
    rows = list(rules())
    assert ("asks to be admitted", "Close", "has said goodbye", "", "always") in rows
    assert ("stands at a guest gate", "Join", "asks to be admitted", "decides on a guest", "always") in rows
    assert ("has said hello", "Chunk", "has said hello", "", "with a handle that this side has opened") in rows
    assert len(rows) == len(NEXT)
