"""The state directory through power cuts: a device stays itself, and a mandate that was founded is there, or was never founded."""

import random
import shutil

from p2psync.store.home import Home
from tests.lan.desks import NOW, fast_place
from tests.sim.disk import Disk, Killed, interposed


def lives(top, chance, step):
    """Found a mandate, with a power cut at ``step`` (None: when it is done); what there is afterwards, and before if it came so far."""
    disk = Disk(top, chance)
    before = None
    with interposed([disk]):
        disk.kill_at(step, after=chance.random() < 0.5)
        try:
            home = Home(top / "state", lambda: NOW)
            device = home.device
            books = home.found("Dupont SA", "Anna", "anna-pc", "linux", top / "Dupont SA")
            before = (device, books.state.name)
            books.close()
        except Killed:
            pass
        disk.crash()
        disk.kill_at(None)
        home = Home(top / "state", lambda: NOW)
        found = list(home.mandates())
        for state in found:
            assert home.open(state).name == "Dupont SA"
        assert sorted(path.name for path in (top / "state/mandates").iterdir()) == [state.name for state in found]
        for connection in list(disk.connections):
            connection.close()
        return before, [(home.device, state.name) for state in found], disk.steps


def test_a_home_and_its_mandate_survive_a_power_cut():
    with fast_place() as place:
        for seed in range(12):
            top = place / str(seed)
            top.mkdir()
            before, after, _ = lives(top, random.Random(seed), None)
            assert after == [before], seed
            shutil.rmtree(top)


def test_a_mandate_is_founded_or_not_whenever_the_power_fails():
    with fast_place() as place:
        for step in range(32):
            top = place / str(step)
            top.mkdir()
            before, after, _ = lives(top, random.Random(step), step)
            assert before is None or after == [before], step
            assert len(after) <= 1, step
            shutil.rmtree(top)
