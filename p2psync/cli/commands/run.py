"""p2psync run: the daemon itself, in the foreground."""

import os
from argparse import ArgumentParser, Namespace

from p2psync.cli.client import Daemon

SUMMARY = "run the daemon, in the foreground"


def declare(parser: ArgumentParser) -> None:
    """[--listen ADDR:PORT] [--interface NAME]... [--peer HOST:PORT]... [--no-mdns] [--keep SPANS], beside --home and --socket."""
    parser.add_argument("--listen", metavar="ADDR:PORT", help="where other machines reach this one; port 22088 unless you say otherwise")
    parser.add_argument(
        "--interface", metavar="NAME", action="append", help="announce and listen there only (default: every LAN interface)"
    )
    parser.add_argument("--peer", metavar="HOST:PORT", action="append", default=[], help="a machine that is not found by itself")
    parser.add_argument(
        "--keep",
        metavar="SPANS",
        help="how long old versions are kept (P2PSYNC_KEEP): 30d,1y,10y unless you say otherwise, which is everything for 30 days, then the"
        " last version of each day for a year, then the last one of each month for ten years; or “all”",
    )
    parser.add_argument("--no-mdns", dest="mdns", action="store_false", help="do not announce, and do not look for announcements")


def perform(daemon: Daemon, args: Namespace) -> int:
    """Run until a signal ends it, and return its exit code."""
    from p2psync.daemon.config import Config
    from p2psync.daemon.run import main

    config = Config.resolve(
        os.environ,
        home=args.home,
        socket=args.socket,
        listen=args.listen,
        interfaces=tuple(args.interface) if args.interface else None,
        peers=tuple(args.peer),
        mdns=args.mdns,
        keep=args.keep,
    )
    return main(config)
