"""At the gate of an invitation: who may admit a guest, and what becomes of a second link when the first was faster."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from p2psync.daemon import admission
from p2psync.daemon.dialer import meet_guest
from p2psync.engine.invitation import Admission, Refusal
from p2psync.values.names import InviteId
from tests.lan.desks import Desk

DAY_MS = 24 * 3600 * 1000


def at_the_gate_of(member: Desk, guest: Desk, ticket: Any, *, talking_to: list[Desk]) -> Admission | Refusal:
    """What the member answers to the guest's ticket while it is linked to these others."""
    joining = guest.home.begin_joining(ticket, b"", guest.person, f"{guest.person}-pc", "linux", guest.folder)
    conversations = [SimpleNamespace(device=other.home.device) for other in talking_to]
    office: Any = SimpleNamespace(device=member.home.device, now_ms=lambda: member.clock)
    mandate: Any = SimpleNamespace(books=member.books, conversations=conversations, note_new=lambda records: None)
    link: Any = SimpleNamespace(peer_key=guest.home.keys.transport_public)
    return admission._decide(office, mandate, link, joining.device, joining.join)


def test_a_member_that_talks_to_another_at_this_moment_may_admit(tmp_path: Path) -> None:
    anna = Desk(tmp_path / "anna", "Anna").found()
    bruno = Desk(tmp_path / "bruno", "Bruno").join(anna, anna.invite("Bruno"))
    ticket = anna.invite("Clara")
    bruno.learn(anna)
    clara = Desk(tmp_path / "clara", "Clara")
    assert isinstance(at_the_gate_of(bruno, clara, ticket, talking_to=[anna]), Admission)


def test_a_member_that_met_nobody_may_not(tmp_path: Path) -> None:
    anna = Desk(tmp_path / "anna", "Anna").found()
    bruno = Desk(tmp_path / "bruno", "Bruno").join(anna, anna.invite("Bruno"))
    ticket = anna.invite("Clara")
    bruno.learn(anna)
    clara = Desk(tmp_path / "clara", "Clara")
    assert at_the_gate_of(bruno, clara, ticket, talking_to=[]) == Refusal.STALE


async def test_behind_the_gate_of_a_ticket_that_has_done_its_work_nobody_is_waited_for() -> None:
    invite = InviteId(bytes(16))
    office: Any = SimpleNamespace(used={invite}, joinings={})
    link: Any = SimpleNamespace(gate=SimpleNamespace(invite=invite))
    assert await meet_guest(office, link)
