"""One machine on a test network: announces itself under a name, and prints a line of JSON for everything that its discovery finds or says.

python lan_peer.py NAME INTERFACE[,INTERFACE...]        until the standard input ends
"""

import json
import sys

import trio

from p2psync.edge.discovery import Announcement, Discovery


async def main(name: str, interfaces: tuple[str, ...]) -> None:
    discovery = Discovery(interfaces)
    discovery.announce(lambda: Announcement(f"\x03v=1{chr(len(name) + 2)}x={name}".encode(), 22088))
    async with trio.open_nursery() as nursery:
        await nursery.start(discovery.run)
        nursery.start_soon(tell_seen, discovery)
        nursery.start_soon(tell_problems, discovery)
        await trio.to_thread.run_sync(sys.stdin.read)
        discovery.stop()
        nursery.cancel_scope.cancel()


async def tell_seen(discovery: Discovery) -> None:
    while True:
        for seen in await discovery.seen():
            say(seen=seen.txt.partition(b"x=")[2].decode(), addresses=seen.addresses, instance=seen.instance)


async def tell_problems(discovery: Discovery) -> None:
    before: object = ""
    while True:
        now = discovery.problem.code if discovery.problem else None
        if now != before:
            say(problem=now)
            before = now
        await trio.sleep(0.05)


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], tuple(sys.argv[2].split(",")))
