"""What the history keeps, for any versions, any policy and any time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.engine.retention import DEFAULT, MONTH, Aged, BadPolicy, Policy, needed
from p2psync.values.digest import Digest, content_digest


def digest(number: int) -> Digest:
    return content_digest(number.to_bytes(4, "big"))


@st.composite
def versions(draw: st.DrawFn) -> list[Aged]:
    """The versions of one path: days never fall, contents may come again."""
    days = sorted(draw(st.lists(st.integers(0, 5000), max_size=25)))
    return [Aged(day, digest(draw(st.integers(0, 40))), draw(st.integers(0, 9)) == 0) for day in days]


policies = st.one_of(
    st.just(DEFAULT),
    st.just(Policy(None, 0, 0)),
    st.builds(Policy, st.integers(1, 60), st.integers(0, 400), st.integers(0, 2000)),
)
everything = st.lists(versions(), max_size=4)
days = st.integers(0, 9000)


@given(everything, days, policies)
def test_what_is_pinned_and_what_is_young_stays(paths: list[list[Aged]], past: int, policy: Policy) -> None:
    today = max((v.day for vs in paths for v in vs), default=0) + past
    kept = needed(paths, today, policy)
    for version in [v for vs in paths for v in vs]:
        if version.pinned or policy.everything is None or today - version.day <= policy.everything:
            assert version.content in kept


@given(everything, days, st.integers(0, 500), policies)
def test_as_time_passes_less_is_kept_and_never_something_else(paths: list[list[Aged]], past: int, more: int, policy: Policy) -> None:
    today = max((v.day for vs in paths for v in vs), default=0) + past
    kept = needed(paths, today, policy)
    assert needed(paths, today, policy) == kept
    assert needed(paths, today + more, policy) <= kept


@given(everything, days, policies)
def test_deciding_again_over_what_is_left_drops_nothing(paths: list[list[Aged]], past: int, policy: Policy) -> None:
    today = max((v.day for vs in paths for v in vs), default=0) + past
    kept = needed(paths, today, policy)
    left = [[v for v in vs if v.content in kept] for vs in paths]
    assert needed(left, today, policy) == kept


@given(versions(), days, policies)
def test_each_day_and_month_keeps_its_last_version(path: list[Aged], past: int, policy: Policy) -> None:
    today = (path[-1].day if path else 0) + past
    kept = needed([path], today, policy)
    if policy.everything is None:
        return
    for slot, oldest in ((1, policy.everything + policy.daily), (MONTH, policy.everything + policy.daily + policy.monthly)):
        last = {v.day // slot: v for v in path}
        assert all(v.content in kept for v in last.values() if today - v.day <= oldest)


@given(versions(), days, policies)
def test_nothing_is_kept_for_longer_than_its_span_without_a_reason(path: list[Aged], past: int, policy: Policy) -> None:
    today = (path[-1].day if path else 0) + past
    if policy.everything is not None:
        spans = policy.everything + policy.daily + policy.monthly
        reasons = {v.content for v in path if v.pinned or today - v.day <= spans}
        assert needed([path], today, policy) <= reasons


def test_a_busy_file_over_the_years() -> None:
    """Four saves on each of two hundred days, the first at day 0: by the default policy."""
    path = [Aged(n // 4, digest(n), n == 799) for n in range(800)]
    assert len(needed([path], 199, DEFAULT)) == 31 * 4 + 169  # everything of the last 30 days and today, then one a day
    assert len(needed([path], 230, DEFAULT)) == 200
    assert len(needed([path], 700, DEFAULT)) == 7  # months of 30 days
    assert needed([path], 10_000, DEFAULT) == {digest(799)}


def test_a_content_stays_while_any_path_needs_it() -> None:
    old, other = Aged(0, digest(1), False), Aged(0, digest(2), False)
    assert needed([[old, other], [Aged(90, digest(1), False)]], 100, DEFAULT) == {digest(1), digest(2)}
    assert needed([[old, other]], 100, DEFAULT) == {digest(2)}


@pytest.mark.parametrize(
    ("text", "policy", "said"),
    [
        (
            "30d,1y,10y",
            DEFAULT,
            "everything for 30 days, then the last version of each day for 1 year, then the last one of each month for 10 years",
        ),
        (" 2W , 6m,0d", Policy(14, 180, 0), "everything for 14 days, then the last version of each day for 6 months"),
        ("all", Policy(None, 0, 0), "everything, for ever"),
    ],
)
def test_a_policy_can_be_written_and_is_said(text: str, policy: Policy, said: str) -> None:
    assert Policy.parse(text) == policy
    assert str(policy) == said


@pytest.mark.parametrize("text", ["", "30", "30d", "30d,1y", "0d,1y,10y", "30d,1y,10y,1y", "-1d,1y,1y", "30d,1y,9999y", "30h,1d,1d"])
def test_what_is_no_policy_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadPolicy, match="30d,1y,10y"):
        Policy.parse(text)
