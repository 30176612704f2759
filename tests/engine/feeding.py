"""An office in which several members want the same at once, reduced to what engine/transfer decides: no network, no disk, a clock of ours.

Every member sends at a rate of its own, to those that asked it by turns, what each asked for in its order.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from functools import partial

from p2psync.engine.load import Load
from p2psync.engine.shares import in_turn
from p2psync.engine.transfer import Transfer
from p2psync.values.digest import Digest

CHUNK = 64 * 1024
TELL_S = 0.1
TEND_S = 0.5
DELAY_S = 0.001


def digest(number: int) -> Digest:
    return Digest(number.to_bytes(32, "big"))


class Member:
    """Sends ``rate`` bytes a second; None: never anything. ``given`` counts what it sent, ``has`` what it has."""

    def __init__(self, office: Office, name: str, rate: float | None, has: set[Digest], whole: bool) -> None:
        self.office, self.name, self.rate, self.has, self.whole = office, name, rate, has, whole
        self.transfer: Transfer[str] = Transfer()
        self.loads: dict[str, Load] = {}
        self.seekers: set[str] = set()
        self.news: list[Digest] = []
        self.asked: dict[str, deque[Digest]] = {}
        self.turn: deque[str] = deque()
        self.sending = False
        self.given = 0
        self.done_at: float | None = None

    # ---- as one who wants

    def want(self, chunks: list[Digest], place: int, of: int) -> None:
        for other in self.office.members.values():
            if other is not self:
                self.loads[other.name] = Load(heard_at=self.office.now, held_at=self.office.now)
                self.transfer.add_peer(other.name, self.loads[other.name])
                self.transfer.trust(other.name, fully=other.whole)
        self.transfer.place = place / of
        ordered = in_turn(chunks, place, of, self.name.encode())
        self.transfer.want([(one, CHUNK) for one in ordered if one not in self.has], of=CHUNK * len(chunks))
        self.ask_all()

    def ask_all(self) -> None:
        for name in self.loads:
            self.ask(name)

    def ask(self, name: str) -> None:
        while ids := self.transfer.requests(name, self.office.now):
            self.office.after(DELAY_S, partial(self.office.members[name].is_asked, self.name, ids))

    def gets(self, name: str, one: Digest) -> None:
        self.loads[name].heard(self.office.now)
        if self.transfer.arrived(name, one):
            self.has.add(one)
            self.news.append(one)
            if not len(self.transfer):
                self.done_at = self.office.now
        self.ask(name)

    def hears_no(self, name: str, one: Digest) -> None:
        self.loads[name].heard(self.office.now)
        self.transfer.lacks(name, one)
        self.ask_all()

    def hears_have(self, name: str, ids: list[Digest]) -> None:
        self.transfer.says(name, ids, self.office.now)
        self.ask(name)

    def tend(self) -> None:
        for name, load in self.loads.items():
            load.judge(self.office.now)
            if self.transfer.tend(name, self.office.now):
                self.ask_all()

    # ---- as one who is asked

    def is_asked(self, name: str, ids: list[Digest]) -> None:
        self.asked.setdefault(name, deque()).extend(ids)
        if name not in self.turn:
            self.turn.append(name)
        self.send()

    def send(self) -> None:
        if self.sending or not self.turn or self.rate is None:
            return
        name = self.turn.popleft()
        one = self.asked[name].popleft()
        if self.asked[name]:
            self.turn.append(name)
        other = self.office.members[name]
        if one in self.has:
            self.sending = True
            self.given += 1
            self.office.after(CHUNK / self.rate, lambda: self.sent(other, one))
        else:
            if name not in self.seekers:
                self.seekers.add(name)
                self.tell(name, list(self.has))
            self.office.after(DELAY_S, lambda: other.hears_no(self.name, one))
            self.send()

    def sent(self, other: Member, one: Digest) -> None:
        self.sending = False
        self.office.after(DELAY_S, lambda: other.gets(self.name, one))
        self.send()

    def tell(self, name: str, ids: list[Digest]) -> None:
        self.office.after(DELAY_S, lambda: self.office.members[name].hears_have(self.name, ids))

    def tell_news(self) -> None:
        news, self.news = self.news, []
        for name in self.seekers if news else ():
            self.tell(name, news)


class Office:
    """``run`` until everybody who wants something has it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.members: dict[str, Member] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def member(self, name: str, rate: float | None, has: set[Digest] | None = None, *, whole: bool = False) -> Member:
        self.members[name] = Member(self, name, rate, has or set(), whole)
        return self.members[name]

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._due, (self.now + seconds, self._count, act))

    def _every(self, seconds: float, act: Callable[[], None]) -> None:
        def again() -> None:
            act()
            self.after(seconds, again)

        self.after(seconds, again)

    def run(self, chunks: list[Digest], limit_s: float) -> float:
        """All who do not have everything want it now; seconds until the last has it."""
        wanting = [one for one in self.members.values() if not one.whole]
        for number, one in enumerate(wanting):
            one.want(chunks, number, len(wanting))
            self._every(TELL_S, one.tell_news)
            self._every(TEND_S, one.tend)
        while any(one.done_at is None for one in wanting):
            self.now, _, act = heapq.heappop(self._due)
            assert self.now < limit_s, {one.name: len(one.transfer) for one in wanting}
            act()
        return max(one.done_at or 0.0 for one in wanting)
