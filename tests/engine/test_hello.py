"""The first words of a connection: both halves against each other, and every way in which a stranger's words differ."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.engine.frames import Channel
from p2psync.engine.hello import (
    ANSWER_SIZE,
    GREETING_SIZE,
    KNOCK_SIZE,
    PROOF_SIZE,
    Gate,
    Greeting,
    HandshakeError,
    Knock,
    Secured,
)
from p2psync.engine.messages import Ping
from p2psync.values.keys import DeviceKeys, GroupKeys, GuestKeys, Secret, gate_key
from p2psync.values.names import InviteId, MandateId

MANDATE, INVITE = MandateId(b"M" * 32), InviteId(b"invitation-of-16")
SECRETS = [Secret(bytes([generation]) * 32) for generation in range(3)]


def chance(seed: str) -> Callable[[int], bytes]:
    """Random bytes that are the same in every run."""
    state = [seed.encode()]

    def nonce(size: int) -> bytes:
        state[0] = hashlib.sha256(state[0]).digest()
        return hashlib.shake_128(state[0]).digest(size)

    return nonce


def device(seed: int) -> DeviceKeys:
    return DeviceKeys(*(Secret(bytes([seed, part]) * 16) for part in range(3)))


def members(generation: int) -> Gate:
    return Gate.for_members(MANDATE, generation, GroupKeys.of(SECRETS[generation], MANDATE))


def guests(invite: InviteId = INVITE, generation: int = 0) -> Gate:
    return Gate.for_guests(MANDATE, invite, GuestKeys.of(gate_key(SECRETS[generation], MANDATE, invite)), generation)


def candidates(invite: InviteId) -> Iterable[Gate]:
    """What a member of three generations of keys answers to: its member gates, and the guest gates of one open invitation."""
    return [*map(members, range(3)), *([guests()] if invite == INVITE else [])]


TRANSCRIPT = Path(__file__).parents[1] / "data" / "handshake-1.json"
ANNA, BEAT = device(1), device(2)
ALL_GATES = [*map(members, range(3)), guests()]


class Talk:
    """One connection between two halves, step by step; a test may alter what is on its way."""

    def __init__(self, gate: Gate, *, caller: DeviceKeys = ANNA, host: DeviceKeys = BEAT, seed: str = "") -> None:
        self.caller, self.gate, self.seed = caller, gate, seed
        self.greeting = Greeting(host, chance(f"host {seed}"))
        self.sent = [self.greeting.data]

    def run(self, alter: Callable[[int, bytes], bytes] = lambda _, data: data) -> tuple[Secured, Secured]:
        knock = Knock(alter(0, self.greeting.data), self.caller, self.gate, chance(f"caller {self.seed}"))
        answer = self.greeting.hear(alter(1, knock.data), candidates)
        proof = knock.hear(alter(2, answer.data))
        secured = answer.hear(alter(3, proof.data))
        self.sent += [knock.data, answer.data, proof.data]
        return proof.secured, secured


@pytest.mark.parametrize("gate", ALL_GATES)
def test_members_of_each_generation_and_guests_get_through(gate: Gate) -> None:
    talk = Talk(gate)
    caller, host = talk.run()
    assert host.gate == gate == caller.gate
    assert (caller.peer_key, host.peer_key) == (BEAT.transport_public, ANNA.transport_public)
    assert caller.channel == host.channel
    assert (caller.initiator, host.initiator) == (True, False)
    assert host.opener.open(caller.sealer.seal(b"hello")) == b"hello"
    assert [len(data) for data in talk.sent] == [32, 82, 98, 66] == [GREETING_SIZE, KNOCK_SIZE, ANSWER_SIZE, PROOF_SIZE]


@pytest.mark.parametrize("step", range(4))
def test_every_altered_byte_of_every_message_fails(step: int) -> None:
    for at in range((GREETING_SIZE, KNOCK_SIZE, ANSWER_SIZE, PROOF_SIZE)[step]):
        for bit in (0x01, 0x80):

            def alter(number: int, data: bytes, at: int = at, bit: int = bit) -> bytes:
                return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :] if number == step else data

            with pytest.raises(HandshakeError):
                Talk(members(1)).run(alter)


@given(st.integers(0, 3), st.integers(0, 200))
def test_messages_of_another_length_fail(step: int, size: int) -> None:
    def alter(number: int, data: bytes) -> bytes:
        return data if number != step else (data + bytes(200))[: size if size != len(data) else size + 1]

    with pytest.raises(HandshakeError):
        Talk(members(1)).run(alter)


@given(st.binary(min_size=KNOCK_SIZE, max_size=KNOCK_SIZE))
def test_a_strangers_words_open_nothing(knock: bytes) -> None:
    with pytest.raises(HandshakeError):
        Greeting(BEAT, chance("")).hear(knock, candidates)


def test_a_gate_opens_with_its_own_keys_only() -> None:
    other = replace(members(0), psk=members(1).psk)
    foreign = Gate.for_members(MandateId(b"N" * 32), 0, GroupKeys.of(SECRETS[0], MandateId(b"N" * 32)))
    for gate in (other, foreign, guests(InviteId(b"closed-or-forged"))):
        with pytest.raises(HandshakeError):
            Talk(gate).run()


def test_a_guest_cannot_pose_as_a_guest_of_another_invitation() -> None:
    with pytest.raises(HandshakeError):
        Talk(replace(guests(), invite=InviteId(b"another-of-16-by"))).run()


def test_a_recorded_knock_is_no_good_to_another_greeting(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(members(0))
    talk.run()
    other = Greeting(BEAT, chance("another"))
    for name in ("crypto_scalarmult", "crypto_scalarmult_base"):  # and it costs no curve operation
        monkeypatch.delattr(f"p2psync.engine.noise.{name}")
    with pytest.raises(HandshakeError):
        other.hear(talk.sent[1], candidates)


def test_a_device_does_not_talk_to_itself() -> None:
    with pytest.raises(HandshakeError, match="itself"):
        Talk(members(0), caller=ANNA, host=ANNA).run()


def test_a_host_that_holds_no_key_of_the_mandate_learns_nothing_of_the_caller() -> None:
    """The caller's static key goes out in the last message only, sealed to a host that has shown the key of the gate."""
    fake = Greeting(BEAT, chance("fake"))
    knock = Knock(fake.data, ANNA, members(0), chance("caller"))
    with pytest.raises(HandshakeError):
        fake.hear(knock.data, lambda _: [replace(members(0), psk=Secret(bytes(32)))])
    assert ANNA.transport_public not in knock.data
    with pytest.raises(HandshakeError):
        knock.hear(bytes(ANSWER_SIZE))


def test_two_knocks_have_nothing_in_common() -> None:
    first, second = (Talk(members(0), seed=seed) for seed in "ab")
    first.run()
    second.run()
    parts = [{data[at : at + 8] for data in talk.sent for at in range(len(data) - 7)} for talk in (first, second)]
    assert not parts[0] & parts[1]


def test_keys_do_not_show() -> None:
    shown = repr(members(0)) + repr(guests())
    for gate in (members(0), guests()):
        for key in (gate.psk, gate.hello_key):
            assert key.hex() not in shown
            assert repr(bytes(key)) not in shown


def test_the_frozen_transcript() -> None:
    """Every byte of a connection, from keys and nonces that stand beside it. It changes only when the protocol does."""
    frozen = {name: bytes.fromhex(text) for name, text in json.loads(TRANSCRIPT.read_text()).items() if name != "about"}
    mandate, secret = MandateId(frozen["mandate"]), Secret(frozen["mandate secret"])
    gate = Gate.for_members(mandate, 1, GroupKeys.of(secret, mandate))
    caller, host = (
        DeviceKeys(Secret(bytes(32)), Secret(frozen[f"{role} static secret"]), Secret(bytes(32))) for role in ("caller", "host")
    )
    greeting = Greeting(host, drawn(frozen["greeting"], frozen["host ephemeral secret"]))
    knock = Knock(greeting.data, caller, gate, drawn(frozen["id"], frozen["caller ephemeral secret"]))
    answer = greeting.hear(knock.data, lambda _: [gate])
    proof = knock.hear(answer.data)
    secured = answer.hear(proof.data)
    said = {"psk": gate.psk, "hello key": gate.hello_key, "knock": knock.data, "answer": answer.data, "proof": proof.data}
    assert {**said, "channel": secured.channel} == {name: frozen[name] for name in (*said, "channel")}
    ends = [Channel(end.sealer, end.opener) for end in (proof.secured, secured)]
    for end, name in zip(ends, ("to host", "to caller"), strict=True):
        assert end.seal(Ping(b"question").pack(), padded=True) + end.seal(b"unpadded", padded=False) == frozen[name]


def drawn(*values: bytes) -> Callable[[int], bytes]:
    """A source of random bytes that gives exactly these."""
    left = list(values)

    def nonce(size: int) -> bytes:
        assert size == len(left[0])
        return left.pop(0)

    return nonce
