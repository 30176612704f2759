"""What a machine says of itself on the network: members find each other in it, strangers find noise."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2psync.engine import beacon
from p2psync.engine.beacon import ENTROPY, MAX_MANDATES, MAX_TXT, NOBODY, Guest, Recognised, announcement, recognise
from p2psync.values.keys import GroupKeys, GuestKeys, Secret, gate_key
from p2psync.values.names import InviteId, MandateId

HOUR_MS = 3_600_000
NOW_MS = 1_750_000_000_000
PORT = 22088

BOOKS, OTHER = MandateId(b"B" * 32), MandateId(b"O" * 32)
BOOKS_KEYS = GroupKeys.of(Secret(b"b" * 32), BOOKS)
OTHER_KEYS = GroupKeys.of(Secret(b"o" * 32), OTHER)
INVITE = InviteId(b"i" * 16)
GUEST_KEYS = GuestKeys.of(gate_key(Secret(b"b" * 32), BOOKS, INVITE))


def announce(*keys: Secret, guests=(), entropy: bytes = b"e" * ENTROPY, now_ms: int = NOW_MS, port: int = PORT) -> bytes:
    return announcement(keys, guests, port=port, now_ms=now_ms, entropy=entropy)


def known(txt: bytes, *, now_ms: int = NOW_MS, port: int = PORT) -> Recognised:
    """As a member of BOOKS sees it."""

    def invited(invite: InviteId) -> list[tuple[MandateId, Secret]]:
        return [(BOOKS, GuestKeys.of(gate_key(Secret(b"b" * 32), BOOKS, invite)).announcement)]

    return recognise(txt, [(BOOKS, BOOKS_KEYS.announcement)], invited, port=port, now_ms=now_ms)


def strings(txt: bytes) -> dict[bytes, bytes]:
    found, at = {}, 0
    while at < len(txt):
        key, _, value = txt[at + 1 : at + 1 + txt[at]].partition(b"=")
        found[key] = value
        at += 1 + txt[at]
    return found


def tokens(txt: bytes) -> list[bytes]:
    joined = b"".join(value for key, value in sorted(strings(txt).items()) if key.startswith(b"t"))
    return [joined[at : at + 4] for at in range(0, len(joined), 4)]


def test_members_recognise_the_mandates_they_share():
    assert known(announce(OTHER_KEYS.announcement, BOOKS_KEYS.announcement)).mandates == {BOOKS}
    assert known(announce(OTHER_KEYS.announcement)) == NOBODY
    assert not NOBODY


def test_a_mandate_is_recognised_under_any_generation_that_is_still_good():
    newer = GroupKeys.of(Secret(b"n" * 32), BOOKS)
    both = [(BOOKS, newer.announcement), (BOOKS, BOOKS_KEYS.announcement)]
    found = recognise(announce(BOOKS_KEYS.announcement), both, lambda _: [], port=PORT, now_ms=NOW_MS)
    assert found.mandates == {BOOKS}


def test_members_recognise_a_guest_by_the_invitation_alone():
    txt = announce(guests=[Guest(INVITE, GUEST_KEYS.announcement)])
    assert known(txt).guests == {(BOOKS, INVITE)}
    assert known(announce(guests=[Guest(INVITE, OTHER_KEYS.announcement)])) == NOBODY


def test_a_copy_for_another_port_is_worth_nothing():
    assert known(announce(BOOKS_KEYS.announcement), port=PORT + 1) == NOBODY


@pytest.mark.parametrize("hours", [-26, -1, 0, 1, 26])
def test_clocks_may_differ_by_a_day(hours):
    assert known(announce(BOOKS_KEYS.announcement), now_ms=NOW_MS + hours * HOUR_MS).mandates == {BOOKS}


@pytest.mark.parametrize("hours", [-27, 27, 24 * 7])
def test_a_clock_that_differs_more_is_told_to_who_has_the_key_and_to_nobody_else(hours):
    there = NOW_MS + hours * HOUR_MS
    stale = known(announce(BOOKS_KEYS.announcement), now_ms=there)
    assert stale.hours_off == abs(hours)
    assert not stale
    assert known(announce(OTHER_KEYS.announcement), now_ms=there).hours_off == 0


@pytest.mark.parametrize(("mandates", "shown"), [(0, 8), (1, 8), (8, 8), (9, 16), (64, 64), (65, 128), (256, 256), (300, 256)])
def test_the_number_of_mandates_is_blurred(mandates, shown):
    assert len(tokens(announce(*(Secret(bytes([n % 256, n // 256]) * 16) for n in range(mandates))))) == shown


def test_the_largest_announcement_fits_a_packet_and_is_still_understood():
    keys = [Secret(n.to_bytes(32, "big")) for n in range(MAX_MANDATES - 1)]
    txt = announce(*keys, BOOKS_KEYS.announcement, guests=[Guest(INVITE, GUEST_KEYS.announcement)] * beacon.MAX_GUESTS)
    assert len(txt) <= MAX_TXT
    assert known(txt) == Recognised(frozenset({BOOKS}), frozenset({(BOOKS, INVITE)}))


def test_the_order_of_the_tokens_says_nothing_about_the_mandates():
    one, two = BOOKS_KEYS.announcement, OTHER_KEYS.announcement
    assert announce(one, two) == announce(two, one)
    assert tokens(announce(one)) == sorted(tokens(announce(one)))


def test_nothing_repeats_from_one_nonce_to_the_next():
    keys = [Secret(n.to_bytes(32, "big")) for n in range(20)]
    first, second = announce(*keys, entropy=b"1" * ENTROPY), announce(*keys, entropy=b"2" * ENTROPY)
    assert not set(tokens(first)) & set(tokens(second))
    assert bytes(BOOKS) not in first
    same_for_all = len(b"\x03v=1\x0en=hour")
    windows = {first[at : at + 8] for at in range(same_for_all, len(first) - 7)}
    assert not windows & {second[at : at + 8] for at in range(same_for_all, len(second) - 7)}


def test_the_form_on_the_wire():
    txt = announce(BOOKS_KEYS.announcement, guests=[Guest(INVITE, GUEST_KEYS.announcement)])
    assert txt.startswith(b"\x03v=1\x0en=" + (NOW_MS // HOUR_MS).to_bytes(4, "big") + b"e" * 8)
    assert list(strings(txt)) == [b"v", b"n", b"t0", b"g"]
    assert strings(txt)[b"g"][:16] == INVITE
    assert txt.hex() == (
        "03763d310e6e3d00076adf65656565656565652374303d49ffcb6e722d86d181bc082a85745bdac8a8c021d041313adbb1b1"
        "28ee2f164e16673d69696969696969696969696969696969050de56e"
    ), "the wire format belongs to the protocol: another one has another version"


def test_random_bytes_are_not_forgotten():
    with pytest.raises(ValueError):
        announcement([], [], port=PORT, now_ms=NOW_MS, entropy=b"few")


@given(st.binary(max_size=2 * MAX_TXT))
@example(b"\xff")
@example(b"\x00" * 50)
@example(b"\x03v=1\x02n=")
@example(b"\x03v=1\x0en=" + b"\xff" * 12 + b"\x04t0=x")
@example(b"\x03V=1\x0eN=" + b"\xff" * 12 + b"\x1eg=" + b"z" * 28)
def test_a_hostile_record_is_nobodys(txt):
    assert known(txt) == NOBODY


@given(st.lists(st.tuples(st.sampled_from([b"v", b"n", b"g", b"t0", b"t5", b"t6", b"", b"=", b"\xff"]), st.binary(max_size=250))))
def test_hostile_fields_are_nobodys(fields):
    txt = b"".join(bytes([len(s)]) + s for key, value in fields if len(s := key + b"=" + value) < 256)
    assert not known(b"\x03v=1" + txt)


@given(st.integers(0, 10**4), st.binary(min_size=1, max_size=3), st.integers(-5, 2**17))
def test_a_damaged_record_is_at_most_understood_in_part(at, patch, port):
    txt = bytearray(announce(BOOKS_KEYS.announcement, guests=[Guest(INVITE, GUEST_KEYS.announcement)]))
    at %= len(txt)
    txt[at : at + len(patch)] = patch
    found = known(bytes(txt), port=port)
    assert found.mandates <= {BOOKS}
    assert found.guests <= {(BOOKS, INVITE)}
    if port != PORT:
        assert found == NOBODY


@given(st.sets(st.binary(min_size=32, max_size=32), max_size=300), st.binary(min_size=ENTROPY, max_size=ENTROPY), st.integers(1, 65535))
def test_every_announced_mandate_is_recognised(secrets, entropy, port):
    members = [(MandateId(secret), Secret(secret)) for secret in secrets]
    txt = announcement([key for _, key in members], [], port=port, now_ms=NOW_MS, entropy=entropy)
    found = recognise(txt, members, lambda _: [], port=port, now_ms=NOW_MS + HOUR_MS)
    assert found.mandates == {mandate for mandate, _ in members[:MAX_MANDATES]}
