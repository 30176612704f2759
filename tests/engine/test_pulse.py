"""How long the other side has been silent."""

from p2psync.engine.pulse import DEAD_AFTER, PING_AFTER, PROVE_WITHIN, Pulse


def test_silence_counts_only_while_somebody_listens() -> None:
    pulse = Pulse()
    assert pulse.silence(100) == 0
    pulse.listen(100)
    assert pulse.silence(103) == 3
    pulse.rest(104)
    assert pulse.silence(1000) == 4
    pulse.listen(1000)
    assert pulse.silence(1002) == 6
    pulse.heard(1002)
    assert pulse.silence(1003) == 1


def test_it_asks_twice_and_then_gives_up() -> None:
    pulse = Pulse()
    pulse.listen(0)
    now, asked = 0.0, []
    while not (verdict := pulse.judge(now, proven=True)).over:
        if verdict.ask:
            asked.append(now)
        now += verdict.pause
    assert asked == [PING_AFTER, 2 * PING_AFTER]
    assert now == DEAD_AFTER
    assert "nothing was heard" in verdict.over


def test_time_to_prove_oneself_begins_when_it_is_asked_for() -> None:
    pulse = Pulse()
    for now, proven, over in ((0, True, False), (100, False, False), (119, False, False), (120, True, False), (121, False, False)):
        assert bool(pulse.judge(now, proven=proven).over) == over
    assert pulse.judge(121 + PROVE_WITHIN, proven=False).over
    assert not pulse.judge(200, proven=True).over


def test_the_pause_never_stands_still() -> None:
    pulse = Pulse()
    pulse.listen(0)
    assert pulse.judge(9.999999999999999, proven=True).pause >= 0.01
