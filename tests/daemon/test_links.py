"""Links between machines: one for each pair, whatever happens to cables, processes and memberships."""

from __future__ import annotations

import itertools

import pytest
import trio
from trio.testing import MockClock

from tests.lan.fake_lan import Lan, Machine, until

BOOKS, MORE = "Dupont SA", "Martin & Fils"


async def joined(host: Machine, guest: Machine, name: str = BOOKS) -> None:
    await guest.subscribe(await host.invite(name, guest.person))
    await until(lambda: guest.office.mandates and guest.talks(host, name), "they talk")
    assert (await guest.wait())["agreed"]


async def test_two_machines_keep_a_file_the_same(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        await anna.create(BOOKS, anna.write("journal.csv", "one"))
        await joined(anna, bruno)
        assert bruno.reads(f"{BOOKS}/journal.csv") == "one"
        bruno.write(f"{BOOKS}/journal.csv", "two")
        await until(lambda: anna.reads("journal.csv") == "two")
        assert (await anna.wait())["agreed"]
        assert (await bruno.wait())["agreed"]


async def test_of_two_that_call_each_other_at_once_one_link_stays(lan: Lan, autojump_clock: MockClock) -> None:
    anna, bruno = lan.machine("Anna"), lan.machine("Bruno")
    anna.peers, bruno.peers = (bruno,), (anna,)
    async with anna.on():
        await anna.create(BOOKS)
        async with bruno.on():
            await joined(anna, bruno)
    for _ in range(3):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(anna.run)
            nursery.start_soon(bruno.run)
            await until(lambda: anna.door and bruno.door and anna.sees(bruno) and bruno.sees(anna), "they are linked")
            await trio.sleep(20)
            ours, theirs = anna.sees(bruno), bruno.sees(anna)
            assert ours and theirs and ours.link.channel == theirs.link.channel
            assert anna.talks(bruno) and bruno.talks(anna)
            await trio.sleep(600)
            assert anna.sees(bruno) is ours and bruno.sees(anna) is theirs
            await anna.stop()
            await bruno.stop()


async def test_a_machine_with_two_addresses_is_not_called_on_the_second(lan: Lan, autojump_clock: MockClock) -> None:
    """Who is called would give up the old link for the new one, and who calls the new one for the old: both would be gone."""
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        await anna.create(BOOKS)
        await joined(anna, bruno)
        link = bruno.sees(anna)
        lan.machines["10.0.0.99"] = anna
        before = len(lan.wires)
        bruno.office.mandates[anna.mandate().id].sightings._told[anna.office.device] = {anna.office.device: [("10.0.0.99", 22088)]}
        object.__setattr__(bruno.office.config, "peers", (*bruno.office.config.peers, ("10.0.0.99", 22088)))
        await trio.sleep(1800)
        assert bruno.sees(anna) is link and bruno.talks(anna) and anna.talks(bruno)
        assert len(lan.wires) <= before + 1


async def test_a_machine_that_was_killed_is_linked_again_as_soon_as_it_is_back(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on():
        await anna.create(BOOKS, anna.write("journal.csv", "one"))
        async with trio.open_nursery() as nursery:
            await nursery.start(bruno.run)
            await joined(anna, bruno)
            await bruno.kill()
        await until(lambda: not anna.sees(bruno))
        anna.write("journal.csv", "two")
        since = trio.current_time()
        async with bruno.on():
            await until(lambda: bruno.reads(f"{BOOKS}/journal.csv") == "two")
            assert trio.current_time() - since < 5
            await until(lambda: anna.talks(bruno))


async def test_a_link_that_is_dead_on_one_side_only_gives_way_to_a_new_call(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on():
        await anna.create(BOOKS)
        async with trio.open_nursery() as nursery:
            await nursery.start(bruno.run)
            await joined(anna, bruno)
            await trio.sleep(10)
            for wire in lan.wires:
                wire.stall()
            await bruno._end()
        dead = anna.sees(bruno)
        assert dead is not None
        async with bruno.on():
            await until(lambda: bruno.door and bruno.office.links and bruno.talks(anna) and anna.talks(bruno))
            assert anna.sees(bruno) is not dead
            await until(lambda: len(anna.mandate().conversations) == 1, "the old one is over")


@pytest.mark.parametrize("out_s", [5, 100, 3000])
async def test_after_a_cable_was_out_the_machines_find_each_other_again(lan: Lan, out_s: float, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        await anna.create(BOOKS, anna.write("journal.csv", "one"))
        await joined(anna, bruno)
        anna.unplug()
        await trio.sleep(out_s)
        anna.write("journal.csv", "two")
        assert (anna.sees(bruno) is None) == (out_s > 60)
        anna.plug()
        since = trio.current_time()
        await until(lambda: bruno.reads(f"{BOOKS}/journal.csv") == "two")
        assert trio.current_time() - since < 75


async def test_whoever_is_not_there_is_called_less_and_less_often(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with bruno.on():
        async with anna.on():
            await anna.create(BOOKS)
            await joined(anna, bruno)
        calls: list[float] = []
        open_stream = bruno.dialer._open_stream

        async def noted(host: str, port: int) -> trio.abc.Stream:
            calls.append(trio.current_time())
            return await open_stream(host, port)

        bruno.dialer._open_stream = noted
        await trio.sleep(600)
        apart = [later - earlier for earlier, later in itertools.pairwise(calls)]
        assert apart[0] < 5
        assert min(apart[-5:]) >= 15 and max(apart) < 75
        async with anna.on():
            await until(lambda: anna.office.links and bruno.talks(anna))


async def test_a_mandate_that_is_shared_later_goes_over_the_link_that_is_there(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        await anna.create(BOOKS)
        await joined(anna, bruno)
        link = bruno.sees(anna)
        await anna.create(MORE, anna.write("lohn.csv", "one"))
        await joined(anna, bruno, MORE)
        assert bruno.reads(f"{MORE}/lohn.csv") == "one"
        assert bruno.sees(anna) is link
        assert anna.talks(bruno, MORE) and bruno.talks(anna, MORE)


async def test_a_member_that_was_admitted_elsewhere_shows_who_it_is(lan: Lan, autojump_clock: MockClock) -> None:
    anna, bruno = lan.machine("Anna"), lan.machine("Bruno")
    clara = lan.machine("Clara", peers=(anna, bruno))
    bruno.peers = (anna,)
    async with anna.on(), bruno.on(), clara.on():
        await anna.create(BOOKS, anna.write("journal.csv", "one"))
        await joined(anna, bruno)
        ticket = await anna.invite(BOOKS, "Clara")
        await until(lambda: len(bruno.mandate().books.roster.invites) == 2)
        lan.blocked |= {("10.0.0.3", "10.0.0.1"), ("10.0.0.2", "10.0.0.1"), ("10.0.0.1", "10.0.0.2")}
        for wire in lan.wires:
            await wire.cut()
        await clara.subscribe(ticket)
        await until(lambda: clara.office.mandates and clara.reads(f"{BOOKS}/journal.csv") == "one")
        assert not anna.office.links
        lan.blocked = {("10.0.0.2", "10.0.0.1"), ("10.0.0.1", "10.0.0.2")}
        await until(lambda: clara.talks(anna) and anna.talks(clara), "Anna lets Clara in")
        clara.write(f"{BOOKS}/journal.csv", "two")
        await until(lambda: anna.reads("journal.csv") == "two")


async def test_a_call_over_a_network_that_was_not_chosen_gets_not_a_byte(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    async with anna.on():
        assert anna.office.serves("10.0.0.1")
        assert anna.office.serves("::ffff:10.0.0.1")
        assert not anna.office.serves("192.168.7.1")
        assert not anna.office.serves("fe80::1", 1)


async def test_a_stop_does_not_wait_for_a_peer_that_hangs(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on():
        async with bruno.on():
            await anna.create(BOOKS)
            await joined(anna, bruno)
            for wire in lan.wires:
                wire.stall()
            since = trio.current_time()
        assert trio.current_time() - since < 4
