"""How many strangers may stand in the door."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.engine.doorkeeper import MAX_PLACES, Doorkeeper, Limits, place_of


def test_four_from_one_address_and_thirty_two_in_all() -> None:
    door = Doorkeeper(Limits())
    let_in = [door.let_in(f"10.0.0.{number // 5}", now=0) for number in range(100)]
    assert sum(let_in) == 32
    assert let_in[:10] == [True, True, True, True, False] * 2
    door.left_door("10.0.0.0", proved=False)
    assert not door.let_in("10.0.0.1", now=0)
    assert door.let_in("10.0.0.0", now=0)


def tries(door: Doorkeeper, place: str, now: float, *, proved: bool = False) -> bool:
    let_in = door.let_in(place, now)
    if let_in:
        door.left_door(place, proved=proved)
    return let_in


def test_ten_at_once_and_twenty_a_minute_from_one_address() -> None:
    door = Doorkeeper(Limits())
    assert [tries(door, "a", now=100) for _ in range(12)] == [True] * 10 + [False] * 2
    assert tries(door, "b", now=100)
    assert [tries(door, "a", now=103) for _ in range(2)] == [True, False]
    assert 199 <= sum(tries(door, "a", now=103 + second / 10) for second in range(1, 6001)) <= 200


def test_fifty_a_second_from_everywhere() -> None:
    door = Doorkeeper(Limits())
    assert sum(tries(door, str(number), now=7) for number in range(200)) == 50
    assert sum(tries(door, str(number), now=8) for number in range(1000, 1200)) == 50


def test_who_proves_to_belong_here_does_not_count() -> None:
    door = Doorkeeper(Limits())
    assert all(tries(door, "a", now=0, proved=True) for _ in range(1000))
    assert sum(tries(door, "a", now=0) for _ in range(20)) == 10


def test_sixty_four_members_whatever_stands_in_the_door() -> None:
    door = Doorkeeper(Limits())
    for number in range(32):
        assert door.let_in(str(number), now=0)
    assert [door.seat() for _ in range(66)] == [True] * 64 + [False] * 2
    door.unseat()
    assert door.seat()


def test_what_is_remembered_is_bounded() -> None:
    door = Doorkeeper(Limits(each_second=1e9))
    for number in range(3 * MAX_PLACES):
        tries(door, str(number), now=number)
    assert len(door._rates) == MAX_PLACES
    assert not door._in_door


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(0, 5)), max_size=200))
def test_the_bounds_hold_whatever_happens(events: list[tuple[str, bool, float]]) -> None:
    limits = Limits(strangers=5, strangers_each=3, burst=4)
    door, now = Doorkeeper(limits), 0.0
    inside: list[str] = []
    for place, leaves, pause in events:
        now += pause
        if leaves and place in inside:
            inside.remove(place)
            door.left_door(place, proved=False)
        elif door.let_in(place, now):
            inside.append(place)
        assert len(inside) <= limits.strangers
        assert all(inside.count(one) <= limits.strangers_each for one in "abc")


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("192.168.1.7", "192.168.1.7"),
        ("::ffff:192.168.1.7", "192.168.1.7"),
        ("fe80::1234%eth0", "fe80:0000:0000:0000"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002"),
        ("2001:db8:1:2:ffff::", "2001:0db8:0001:0002"),
        ("laptop-of-a-test", "laptop-of-a-test"),
        (None, ""),
    ],
)
def test_one_holder_is_one_place(host: str | None, place: str) -> None:
    assert place_of(host) == place
