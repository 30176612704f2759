"""Records that came too early wait within bounds, each in its sender's name."""

from __future__ import annotations

import pytest

from p2psync.engine import parking
from p2psync.engine.parking import Parking
from p2psync.values.names import RecordId
from p2psync.values.record import Record
from tests.office import Office

NEEDS = RecordId(b"n" * 32)


def records(number: int) -> list[Record]:
    office = Office()
    return [office.change(office.owner) for _ in range(number)]


def test_what_waited_is_given_out_once_with_its_sender() -> None:
    found: Parking[str] = Parking()
    one, two = records(2)
    assert found.park(one, NEEDS, "marie") and found.park(two, NEEDS, "luc")
    assert len(found) == 2
    assert found.waiting_for(RecordId(bytes(32))) == []
    assert found.waiting_for(NEEDS) == [(one, "marie"), (two, "luc")]
    assert found.waiting_for(NEEDS) == [] and len(found) == 0


def test_the_same_record_takes_one_place() -> None:
    found: Parking[str] = Parking()
    (one,) = records(1)
    assert found.park(one, NEEDS, "marie")
    assert not found.park(one, NEEDS, "marie") and not found.park(one, NEEDS, "luc")
    assert len(found) == 1


@pytest.mark.parametrize(("limit", "value"), [("EACH", 3), ("EACH_BYTES", 1300)])
def test_a_sender_fills_its_own_place_and_nobody_elses(monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(parking, limit, value)
    found: Parking[str] = Parking()
    *many, last = records(20)
    took = [found.park(record, NEEDS, "marie") for record in many]
    assert took.count(True) < 10 and not took[-1]
    assert found.park(last, NEEDS, "luc")


@pytest.mark.parametrize(("limit", "value"), [("MOST", 3), ("MOST_BYTES", 1300)])
def test_all_together_take_a_bounded_place(monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(parking, limit, value)
    found: Parking[str] = Parking()
    took = [found.park(record, NEEDS, f"sender {index}") for index, record in enumerate(records(20))]
    assert 1 <= took.count(True) < 10


def test_who_leaves_takes_its_records_along() -> None:
    found: Parking[str] = Parking()
    one, two, three = records(3)
    found.park(one, NEEDS, "marie")
    found.park(two, NEEDS, "luc")
    found.park(three, RecordId(bytes(32)), "marie")
    found.left("marie")
    found.left("nobody")
    assert len(found) == 1
    assert found.waiting_for(NEEDS) == [(two, "luc")]
    assert found.park(one, NEEDS, "marie")
