"""Whose turn it is: which message is legal when, as a table.

Each side of a session is in a state of its own; a message moves the state of the side that says it, and sometimes the other's too.
``NEXT`` and ``ANSWERED`` are the whole law, ``ONLY_IF`` what must hold besides; ``rules()`` prints it for docs/protocol.md.
Both sides keep both states, so that each error is found where it is made, and again where it arrives. After an error nothing is legal.
"""

from collections.abc import Iterator
from enum import Enum
from typing import Literal

from p2psync.engine import messages as m
from p2psync.engine.encoding import Message
from p2psync.values.errors import PeerError

MAX_HANDLES = 1024
"""Mandates that one side may open in a session."""


class State(Enum):
    """What one side may say next. The values are for people."""

    GUEST_GATE = "stands at a guest gate"
    ASKING = "asks to be admitted"
    DECIDING = "decides on a guest"
    REFUSED = "has refused or was refused"
    UNKNOWN = "has not said hello"
    GREETED = "has said hello"
    CLOSED = "has said goodbye"
    FAILED = "has broken the rules"

    __hash__ = object.__hash__
    """It is looked up with each message, and Python's own asks for the name each time."""


class Only(Enum):
    """What a message may need besides the state of the side that says it."""

    ANY = "always"
    MET = "after the other's hello"
    OPENED = "with a handle that this side has opened"


class OutOfTurn(PeerError):
    """The other machine sent {message} when it was not its turn: it {state}."""


class LocalError(RuntimeError):
    """We were about to say something illegal: a mistake of ours, which the other machine would have to punish."""


ALIVE = (State.GUEST_GATE, State.ASKING, State.DECIDING, State.REFUSED, State.UNKNOWN, State.GREETED)
ABOUT_A_MANDATE = (
    *(m.Heads, m.Want, m.Records, m.Keys, m.WantChunks, m.Chunk, m.NoChunk),
    *(m.ForkProof, m.WantListing, m.Listing, m.NoListing, m.ListingChange, m.Held, m.Whereabouts, m.Have),
)

NEXT: dict[tuple[State, type[Message]], State] = {
    **{(state, m.Close): State.CLOSED for state in ALIVE},
    **{(state, kind): state for state in ALIVE for kind in (m.Ping, m.Pong)},
    (State.GUEST_GATE, m.Join): State.ASKING,
    (State.DECIDING, m.Pending): State.DECIDING,
    (State.DECIDING, m.Refused): State.REFUSED,
    (State.DECIDING, m.Welcome): State.UNKNOWN,
    (State.UNKNOWN, m.Who): State.UNKNOWN,
    (State.UNKNOWN, m.Introduce): State.UNKNOWN,
    (State.UNKNOWN, m.Hello): State.GREETED,
    (State.GREETED, m.Who): State.GREETED,
    (State.GREETED, m.Introduce): State.GREETED,
    (State.GREETED, m.Open): State.GREETED,
    **{(State.GREETED, kind): State.GREETED for kind in ABOUT_A_MANDATE},
}
"""The state of a side after it said a message; what is missing is illegal."""

ANSWERED: dict[tuple[State, type[Message]], State] = {
    (State.GUEST_GATE, m.Join): State.DECIDING,
    (State.ASKING, m.Refused): State.REFUSED,
    (State.ASKING, m.Welcome): State.UNKNOWN,
}
"""The state of a side after the other said a message, where that changes it."""

ONLY_IF: dict[type[Message], Only] = {m.Open: Only.MET, **dict.fromkeys(ABOUT_A_MANDATE, Only.OPENED)}


class _Side:
    """One side, as both see it."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.greeted = False
        self.handles: set[int] = set()

    def fault(self, message: Message, other: "_Side") -> str | None:
        """Why this side may not say ``message`` now, or None when it may."""
        if (self.state, type(message)) not in NEXT:
            return self.state.value
        needs = ONLY_IF.get(type(message), Only.ANY)
        if needs is Only.MET and not other.greeted:
            return "has not heard a hello"
        if isinstance(message, m.Open):
            return None if message.handle not in self.handles and len(self.handles) < MAX_HANDLES else "has opened that handle, or too many"
        if needs is Only.OPENED and getattr(message, "handle", None) not in self.handles:
            return "has not opened that handle"
        return None

    def say(self, message: Message, other: "_Side") -> None:
        """Move both sides; the caller has made sure that it is legal."""
        self.state = NEXT[self.state, type(message)]
        other.state = ANSWERED.get((other.state, type(message)), other.state)
        self.greeted = self.greeted or isinstance(message, m.Hello)
        if isinstance(message, m.Open):
            self.handles.add(message.handle)


class Session:
    """Both sides of one session. No I/O: the caller says what it sends and what it received, before it acts on it."""

    def __init__(self, gate_kind: Literal["member", "guest"]) -> None:
        start = State.UNKNOWN if gate_kind == "member" else State.GUEST_GATE
        self._ours, self._theirs = _Side(start), _Side(start)

    @property
    def ours(self) -> State:
        """What we may say next."""
        return self._ours.state

    @property
    def theirs(self) -> State:
        """What the other side may say next."""
        return self._theirs.state

    def may_send(self, message: Message) -> bool:
        """Whether ``message`` would be legal for us now."""
        return self._ours.fault(message, self._theirs) is None

    def sent(self, message: Message) -> None:
        """We are about to send ``message``.

        Raises:
            LocalError: it is not legal; from then on nothing of ours is.
        """
        fault = self._ours.fault(message, self._theirs)
        if fault:
            self._ours.state = State.FAILED
            raise LocalError(f"{type(message).__name__}: this side {fault}")
        self._ours.say(message, self._theirs)

    def received(self, message: Message) -> None:
        """The other side sent ``message``.

        Raises:
            OutOfTurn: it was not legal; from then on nothing of theirs is.
        """
        fault = self._theirs.fault(message, self._ours)
        if fault:
            self._theirs.state = State.FAILED
            raise OutOfTurn(message=type(message).__name__, state=fault)
        self._theirs.say(message, self._ours)


def rules() -> Iterator[tuple[str, str, str, str, str]]:
    """The table, one row for each legal message: state, message, the own state after it, the other's where it changes, condition."""
    for (state, kind), after in NEXT.items():
        turned = [new.value for (_, said), new in ANSWERED.items() if said is kind]
        yield state.value, kind.__name__, after.value, "".join(turned), ONLY_IF.get(kind, Only.ANY).value
