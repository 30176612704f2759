"""The state directory: whose it is, what is in it, and that a half-made mandate never counts."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psync.engine.invitation import Admission, consider_join, draft, ticket_for
from p2psync.store.books import Books
from p2psync.store.home import Home, HomeExposed, HomeForeign, Joining
from p2psync.store.mandatefolder import FolderUnusable
from p2psync.values.acts import Role
from p2psync.values.errors import UserError
from p2psync.values.keys import Secret
from p2psync.values.names import InviteId
from p2psync.values.record import Kind
from p2psync.values.ticket import Ticket

NOW = 1_800_000_000_000


def make_home(path: Path) -> Home:
    return Home(path, lambda: NOW)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


@pytest.fixture
def founded(home: Home, tmp_path: Path) -> Iterator[Books]:
    books = home.found("Dupont SA", "Anna", "anna-pc", "linux", tmp_path / "files")
    yield books
    books.close()


def ticket_of(home: Home, books: Books) -> tuple[Ticket, bytes]:
    terms = {"for_name": "Marie", "now_ms": NOW, "lasts_ms": 86_400_000, "role": Role.EDITOR}
    drafted = draft(books.roster, home.device, invite=InviteId(b"i" * 16), seed=Secret(b"s" * 32), **terms)  # type: ignore[arg-type]
    record = books.act(Kind.INVITE, drafted.invite.pack())
    text = ticket_for(books.roster, record, home.keys, drafted, books.secret.group[-1][1], (), name=books.name, now_ms=NOW)
    return Ticket.parse(text), text


@pytest.fixture
def guest(tmp_path: Path) -> Home:
    return make_home(tmp_path / "guest")


@pytest.fixture
def joining(home: Home, founded: Books, guest: Home, tmp_path: Path) -> Joining:
    return guest.begin_joining(*ticket_of(home, founded), "Marie", "marie-pc", "linux", tmp_path / "guest files")


# ---- whose it is


def test_a_home_is_made_for_its_owner_alone(home: Home) -> None:
    for path in (home.path, home.path / "mandates", home.path / "joining"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert list(home.mandates()) == [] and list(home.joinings()) == []


def test_it_is_found_again_with_the_same_device(home: Home) -> None:
    assert make_home(home.path).device == home.device


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_home_that_others_may_write_to_is_refused(home: Home, mode: int) -> None:
    home.path.chmod(mode)
    with pytest.raises(HomeExposed, match="chmod 700"):
        make_home(home.path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_the_home_of_somebody_else_is_refused(home: Home) -> None:
    os.chown(home.path, 12345, -1)
    with pytest.raises(HomeForeign, match="12345"):
        make_home(home.path)


def test_a_home_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError):
        make_home(tmp_path / "file" / "home")


# ---- mandates


def test_a_mandate_that_is_founded_is_local_and_owned(home: Home, founded: Books, tmp_path: Path) -> None:
    assert list(home.mandates()) == [founded.state]
    assert founded.name == "Dupont SA" and not founded.shared and founded.folder == tmp_path / "files"
    assert founded.me is not None and founded.me.role == Role.OWNER and founded.me.person == "Anna"
    assert founded.state.name == founded.mandate.hex()
    assert stat.S_IMODE((founded.state / "secret").stat().st_mode) == 0o600
    assert founded.secret.root_seed is not None


def test_two_mandates_of_one_name_are_two(home: Home, founded: Books, tmp_path: Path) -> None:
    other = home.found("Dupont SA", "Anna", "anna-pc", "linux", tmp_path / "others")
    assert other.mandate != founded.mandate and len(list(home.mandates())) == 2
    home.abandon(other)
    assert list(home.mandates()) == [founded.state]


def test_a_founding_that_fails_leaves_nothing_that_counts(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2psync.store.keyring.save_mandate", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        home.found("Dupont SA", "Anna", "anna-pc", "linux", tmp_path / "files")
    assert list(home.mandates()) == []
    assert list((make_home(home.path).path / "mandates").iterdir()) == [], "what was begun is swept away at the next start"


def test_other_things_in_the_folder_are_no_mandates(home: Home, founded: Books) -> None:
    (home.path / "mandates" / "notes").mkdir()
    (home.path / "mandates" / ("0" * 64)).mkdir()
    (home.path / "mandates" / ("1" * 64)).touch()
    assert list(home.mandates()) == [founded.state]


# ---- tickets in use


def test_a_ticket_in_use_is_found_again_with_the_same_records(guest: Home, joining: Joining) -> None:
    assert list(make_home(guest.path).joinings()) == [joining]
    (path,) = (guest.path / "joining").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_ticket_in_use_hides_no_other(guest: Home, joining: Joining) -> None:
    (guest.path / "joining" / "00").write_bytes(b"nonsense")
    (guest.path / "joining" / "01").mkdir()
    assert list(guest.joinings()) == [joining]


def test_the_mandate_opens_where_it_was_to_and_the_ticket_is_forgotten(founded: Books, guest: Home, joining: Joining) -> None:
    books = guest.joined(joining, founded.secret.group)
    assert books.shared and books.mandate == founded.mandate and books.folder == joining.folder
    assert books.folder.is_dir() and books.secret.root_seed is None
    assert list(guest.joinings()) == [] and list(guest.mandates()) == [books.state]
    assert books.me is None, "not before the admission has arrived"
    books.close()


def test_a_ticket_stays_in_use_when_the_mandate_cannot_open(founded: Books, guest: Home, joining: Joining) -> None:
    joining.folder.write_text("something else")
    with pytest.raises(FolderUnusable):
        guest.joined(joining, founded.secret.group)
    assert list(guest.joinings()) == [joining] and list(guest.mandates()) == []
    joining.folder.unlink()
    guest.joined(joining, founded.secret.group).close()


def test_a_member_admits_what_was_written_down(home: Home, founded: Books, guest: Home, joining: Joining) -> None:
    """The records are the same on every try, so that one ticket is used once, however often the guest knocks."""
    for _ in range(2):
        (again,) = guest.joinings()
        answer = consider_join(
            founded.roster,
            again.device,
            again.join,
            me=home.device,
            peer_key=guest.keys.transport_public,
            now_ms=NOW,
            fresh=True,
        )
        assert isinstance(answer, Admission)
        founded.accept([again.device.raw, again.join.raw])
        if answer.witness is not None:
            founded.act(Kind.WITNESS, answer.witness.pack())
    assert {member.person for member in founded.roster.members().values()} == {"Anna", "Marie"}


def test_a_ticket_that_was_refused_is_forgotten(guest: Home, joining: Joining) -> None:
    guest.end_joining(joining.ticket.invite)
    guest.end_joining(joining.ticket.invite)
    assert list(guest.joinings()) == []
