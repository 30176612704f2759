"""What the status shows stays for as long as it is so, and not a survey longer."""

from __future__ import annotations

from p2psync.engine.attention import Attention
from p2psync.engine.notices import Notices


def notice(code: str, since: int = 1, **facts: object) -> Attention:
    return Attention(code, since, facts)


def shown(found: dict[str, Attention | None], notices: Notices | None = None, surveyed: tuple[str, ...] = ()) -> Notices:
    notices = Notices() if notices is None else notices
    notices.take(found, set(surveyed), {"Books", "cash.txt"})
    return notices


def test_a_notice_stays_until_its_path_is_in_order() -> None:
    notices = shown({"cash.txt": notice("open-here"), "Books/a.txt": notice("fetching")})
    shown({"Books/a.txt": None}, notices)
    assert set(notices) == {"cash.txt"}


def test_the_same_notice_keeps_its_beginning_and_another_takes_its_place() -> None:
    notices = shown({"cash.txt": notice("open-here", since=1, by=" by Anna")})
    shown({"cash.txt": notice("open-here", since=2, by=" by Anna")}, notices)
    assert notices["cash.txt"].since_ms == 1
    shown({"cash.txt": notice("open-here", since=3, by=" by Bruno")}, notices)
    assert notices["cash.txt"].since_ms == 3


def test_what_could_not_be_taken_for_a_path_goes_when_a_survey_does_not_find_it_again() -> None:
    found = {"Books/CON.txt": notice("bad-name"), "Books/link": notice("unreadable"), "Books/a.txt": notice("reader")}
    notices = shown({**found})
    shown({}, notices)
    assert len(notices) == 3
    shown({"Books/link": found["Books/link"]}, notices, surveyed=("cash.txt",))
    assert len(notices) == 3
    shown({"Books/link": found["Books/link"]}, notices, surveyed=("Books",))
    assert set(notices) == {"Books/link", "Books/a.txt"}


def test_a_folder_with_an_impossible_name_takes_what_is_in_it_along() -> None:
    notices = shown({"Books/aux": notice("bad-name"), "Books/aux/in.txt": notice("bad-name"), "Books/auxiliary?": notice("bad-name")})
    shown({"Books/aux": None}, notices)
    assert set(notices) == {"Books/auxiliary?"}


def test_what_was_detached_is_not_spoken_of_any_more() -> None:
    notices = shown({"Books/a.txt": notice("fetching"), "cash.txt": notice("fetching")})
    notices.take({}, set(), {"cash.txt"})
    assert set(notices) == {"cash.txt"}


def test_a_path_that_another_held_up_is_free_when_something_became_of_the_other() -> None:
    notices = shown({"Books/foo.txt": notice("name-collision", other="Books/Foo.txt"), "cash.txt": notice("fetching")})
    assert notices.freed({"cash.txt"}) == set()
    assert notices.freed({"Books/foo.txt"}) == set()
    assert notices.freed({"Books/Foo.txt"}) == {"Books/foo.txt"}


def test_the_paths_with_a_code() -> None:
    notices = shown({"Books/a.txt": notice("reader"), "Books/b.txt": notice("reader-new"), "cash.txt": notice("fetching")})
    assert notices.with_code("reader", "reader-new") == {"Books/a.txt", "Books/b.txt"}
