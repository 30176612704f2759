"""Records: one encoding for each, golden bytes, and a second reader that finds whatever was done to a journal."""

from __future__ import annotations

import ast
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from p2psync.values.errors import Malformed
from p2psync.values.names import MandateId, RecordId
from p2psync.values.packing import pack, unpack
from p2psync.values.record import MAX_RECORD, NO_MANDATE, Kind, Record
from tests.office import Office, seed
from tests.verifier import Fault, Seen, read_plain, read_record, verify

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "records-1.json").read_text())
KEY = SigningKey(bytes(seed("golden")))


def record(**change) -> Record:
    usual = {
        "mandate": MandateId(bytes(range(32))),
        "incarnation": b"12345678",
        "seq": 2,
        "prev": RecordId(b"p" * 32),
        "deps": (RecordId(b"b" * 32), RecordId(b"a" * 32)),
        "time_ms": 1_760_000_000_000,
        "kind": Kind.CHANGE,
        "body": [1, "é", b"x", None, True, [2**64 - 1]],
    }
    return Record.sign(KEY, **{**usual, **change})


def resigned(envelope: list, kind: int | None = None) -> bytes:
    """A raw record around any envelope, signed as its kind demands."""
    packed = pack(envelope)
    genesis = (envelope[8] if kind is None else kind) == Kind.GENESIS
    prefix = b"p2psync/1 genesis\0" if genesis else b"p2psync/1 record\0"
    return pack([packed, KEY.sign(prefix + packed).signature])


ENVELOPE = unpack(unpack(record().raw, MAX_RECORD)[0], MAX_RECORD)


def test_a_record_comes_back_as_it_was_signed() -> None:
    signed = record()
    assert Record.parse(signed.raw) == signed
    assert signed.deps == (b"a" * 32, b"b" * 32)
    assert signed.log == (bytes(KEY.verify_key), b"12345678")


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_records(name: str) -> None:
    """The bytes of version 1, which every later version reads and signs alike."""
    facts = GOLDEN[name]
    kind = Kind(facts["kind"])
    change = {"mandate": NO_MANDATE, "incarnation": bytes(8), "seq": 1, "prev": None, "deps": ()} if kind == Kind.GENESIS else {}
    signed = record(kind=kind, body=unpack(bytes.fromhex(facts["body"]), MAX_RECORD), **change)
    assert signed.raw.hex() == facts["raw"]
    assert signed.id.hex() == facts["id"]
    assert signed.founds.hex() == facts["founds"]
    assert Record.parse(bytes.fromhex(facts["raw"])) == signed


def test_the_second_reader_sees_the_same() -> None:
    for name, facts in GOLDEN.items():
        raw = bytes.fromhex(facts["raw"])
        ours, theirs = Record.parse(raw), read_record(raw)
        assert theirs == Seen(
            ours.id, ours.founds, ours.mandate, ours.log, ours.seq, ours.prev, ours.deps, ours.time_ms, ours.kind, list(ours.body)
        ), name


def other(index: int, value: object) -> bytes:
    return resigned([*ENVELOPE[:index], value, *ENVELOPE[index + 1 :]])


WRONG = {
    "another version": other(0, 2),
    "a mandate that is too short": other(1, b"m"),
    "another device than signed": other(2, bytes(SigningKey(bytes(32)).verify_key)),
    "a device that is no point": other(2, b"\xff" * 32),
    "a device of small order": other(2, bytes(32)),
    "a long incarnation": other(3, bytes(9)),
    "place 0": other(4, 0),
    "first, but with a predecessor": other(4, 1),
    "second, without a predecessor": other(5, None),
    "a short predecessor": other(5, b"p"),
    "unsorted dependencies": other(6, [b"b" * 32, b"a" * 32]),
    "doubled dependencies": other(6, [b"a" * 32, b"a" * 32]),
    "a dependency that is text": other(6, ["a" * 32]),
    "too many dependencies": other(6, [bytes([n]) * 32 for n in range(33)]),
    "a time that is true": other(7, True),
    "kind 0": other(8, 0),
    "kind 15": other(8, 15),
    "a body that is text": other(9, "body"),
    "a field more": resigned([*ENVELOPE, None]),
    "signed as a genesis": resigned(ENVELOPE, Kind.GENESIS),
    "too long": other(9, [bytes(MAX_RECORD)]),
    "no signature": pack([pack(ENVELOPE)]),
    "a short signature": pack([pack(ENVELOPE), bytes(63)]),
    "a wrong signature": pack([pack(ENVELOPE), bytes(64)]),
    "bytes after the end": record().raw + b"\xc0",
    "nothing": b"",
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_not_exactly_a_record_is_refused_by_both_readers(what: str) -> None:
    with pytest.raises(Malformed):
        Record.parse(WRONG[what])
    with pytest.raises(Fault):
        read_record(WRONG[what])


def test_a_value_in_a_longer_form_is_refused_though_it_is_signed() -> None:
    packed = pack(ENVELOPE)
    assert packed[1:2] == b"\x01"
    longer = packed[:1] + b"\xcc\x01" + packed[2:]  # the version as u8 rather than as a fixint
    raw = pack([longer, KEY.sign(b"p2psync/1 record\0" + longer).signature])
    with pytest.raises(Malformed, match="canonical"):
        Record.parse(raw)
    with pytest.raises(Fault):
        read_record(raw)


def test_a_record_that_would_be_too_long_is_not_signed() -> None:
    with pytest.raises(ValueError, match="bytes"):
        record(body=[bytes(MAX_RECORD)])
    with pytest.raises(ValueError, match="dependencies"):
        record(deps=[RecordId(bytes([n]) * 32) for n in range(33)])


def agree(raw: bytes) -> bool:
    """Whether both readers take ``raw``; they must say the same."""
    try:
        Record.parse(raw)
        ours = True
    except Malformed:
        ours = False
    try:
        read_record(raw)
        theirs = True
    except Fault:
        theirs = False
    assert ours == theirs, raw.hex()
    return ours


def test_every_byte_of_a_record_counts() -> None:
    raw = record().raw
    for at in range(len(raw)):
        for flip in (1, 0x80):
            assert not agree(raw[:at] + bytes([raw[at] ^ flip]) + raw[at + 1 :])
        assert not agree(raw[:at])


plain = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2**64 - 1) | st.text(max_size=40) | st.binary(max_size=40),
    lambda below: st.lists(below, max_size=6),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(plain, max_size=6))
def test_any_body_has_one_encoding_that_both_readers_know(body: list) -> None:
    try:
        signed = record(body=body)
    except Malformed:  # nested more deeply than a record may be
        return
    assert agree(signed.raw)
    assert read_record(signed.raw).body == list(signed.body) == body
    assert pack(unpack(pack(body), MAX_RECORD)) == pack(body)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_both_readers_of_msgpack_agree_on_any_bytes(data: bytes) -> None:
    try:
        theirs = read_plain(data)
    except Fault:
        theirs = None
    try:
        assert unpack(data, 100) == theirs
    except Malformed:
        assert not isinstance(theirs, list)


# A journal as a whole ------------------------------------------------------------------------------------------------------------


def journal() -> tuple[Office, list[bytes]]:
    """Three people who work, meet and do not meet."""
    office = Office()
    anna, berta = office.admit("anna"), office.admit("berta")
    for round_ in range(3):
        for device in (office.owner, anna, berta):
            office.change(device)
        if round_:
            office.meet(anna, berta)
    office.meet(office.owner, berta)
    office.change(office.owner)
    return office, [one.raw for one in office.records.values()]


OFFICE, JOURNAL = journal()
ENDS = verify(JOURNAL)


def test_a_whole_journal_is_verified() -> None:
    assert verify(JOURNAL, ENDS) == {one.log: (one.seq, one.id) for one in OFFICE.records.values()}
    assert len(ENDS) == 4  # the root's log, and one for each device


def test_any_removal_is_found() -> None:
    for at in range(len(JOURNAL)):
        with pytest.raises(Fault):
            verify(JOURNAL[:at] + JOURNAL[at + 1 :], ENDS)
        with pytest.raises(Fault):
            verify(JOURNAL[:at], ENDS)


def test_any_record_moved_before_what_it_stands_on_is_found() -> None:
    records = list(OFFICE.records.values())
    for at, one in enumerate(records):
        needed = {*one.deps, *([one.prev] if one.prev else [])}
        for before in range(at):
            if records[before].id in needed:
                with pytest.raises(Fault):
                    verify([*JOURNAL[:before], JOURNAL[at], *JOURNAL[before:at], *JOURNAL[at + 1 :]], ENDS)


def test_any_edit_is_found() -> None:
    dice = random.Random(7)
    for at, raw in enumerate(JOURNAL):
        for _ in range(10):
            place = dice.randrange(len(raw))
            edited = raw[:place] + bytes([raw[place] ^ dice.randint(1, 255)]) + raw[place + 1 :]
            with pytest.raises(Fault):
                verify([*JOURNAL[:at], edited, *JOURNAL[at + 1 :]], ENDS)


def test_a_record_put_in_twice_or_from_elsewhere_is_found() -> None:
    foreign = Office(tag="other").owner
    theirs = next(one.raw for one in Office(tag="other").records.values() if one.device == foreign.id)
    for raw in (JOURNAL[3], theirs, JOURNAL[0]):
        with pytest.raises(Fault):
            verify([*JOURNAL, raw], ENDS)
    with pytest.raises(Fault):
        verify(JOURNAL[1:])
    with pytest.raises(Fault):
        verify([])


def test_an_author_who_rewrites_history_is_found_by_the_ends() -> None:
    office, raws = journal()
    anna = office.devices["anna"]
    mine = [one for one in office.records.values() if one.log == anna.log]
    last = mine[-1]
    rewritten = Record.sign(
        anna.keys.signing,
        mandate=last.mandate,
        incarnation=last.incarnation,
        seq=last.seq,
        prev=last.prev,
        deps=last.deps,
        time_ms=last.time_ms,
        kind=last.kind,
        body=[["something else"]],
    )
    changed = [rewritten.raw if raw == last.raw else raw for raw in raws]
    with pytest.raises(Fault):
        verify(changed, verify(raws))


def test_the_second_reader_shares_nothing_with_the_first() -> None:
    tree = ast.parse(Path(verify.__code__.co_filename).read_text())
    froms = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.split(".")[0] for name in froms | plain} == {
        "__future__",
        "hashlib",
        "collections",
        "dataclasses",
        "typing",
        "cryptography",
    }
