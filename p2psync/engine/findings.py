"""What “p2psync doctor” may find: can this machine be found and reached, does it notice changes, and has it room?

Each is a code with a sentence: one that all is well, or one that says where to look, and then with the next action.
"""

from typing import Any, Literal, NamedTuple, TypeAlias

from p2psync.engine.attention import filled, ready

About: TypeAlias = Literal["daemon", "network", "mdns", "port", "firewall", "changes", "clock", "disk", "home", "problems"]


class Kind(NamedTuple):
    """One entry of the table; ``ok`` says that nothing is to be done, whatever the action."""

    about: About
    ok: bool
    sentence: str
    action: str = ""
    commands: tuple[str, ...] = ()


FINDINGS: dict[str, Kind] = {
    "service": Kind("daemon", True, "p2psync {version} runs as {how} (process {pid})."),
    "by-hand": Kind("daemon", True, "p2psync {version} was started by hand (process {pid}), and does not start with this machine."),
    "no-daemon": Kind("daemon", False, "{why}", "{do}"),
    "network": Kind("network", True, "Other machines are looked for on {interfaces}."),
    "network-own": Kind("network", True, "Only this machine itself is looked at ({interfaces}), as it was told to."),
    "no-network": Kind(
        "network",
        False,
        "This machine is on no network{which}, so it finds no other machine and none finds it.",
        "Connect it; p2psync goes on by itself.",
    ),
    "mdns": Kind("mdns", True, "This machine announces itself by mDNS, and answers to a question on {interfaces}."),
    "mdns-silent": Kind("mdns", True, "Nothing is announced by mDNS, since no mandate is shared and no ticket is in use here."),
    "mdns-off": Kind("mdns", True, "mDNS is switched off (--no-mdns): other machines are found by their addresses alone."),
    "mdns-fails": Kind("mdns", False, "{why}", "{do}"),
    "mdns-starting": Kind("mdns", True, "This machine is about to announce itself by mDNS."),
    "mdns-unheard": Kind(
        "mdns",
        False,
        "A question by mDNS on {interfaces} got no answer from this machine itself.",
        "See whether a firewall on this machine stops UDP port 5353, and allow it:",
        ("sudo ufw allow 5353/udp",),
    ),
    "port": Kind("port", True, "Port {port} answers at {addresses}."),
    "port-shut": Kind(
        "port",
        False,
        "Port {port} does not answer at {addresses}, not even to this machine itself.",
        "See whether a firewall on this machine stops TCP port {port}, and allow it:",
        ("sudo ufw allow {port}/tcp",),
    ),
    "reached": Kind("firewall", True, "Other machines have reached port {port} since p2psync was started, the last one from {address}."),
    "own-only": Kind("firewall", True, "Only programs of this machine itself can reach port {port}, as p2psync was told."),
    "not-needed": Kind("firewall", True, "Nobody else takes part in a mandate of this machine yet, so nobody has to reach port {port}."),
    "never-reached": Kind(
        "firewall",
        False,
        "Nobody has reached port {port} from outside since p2psync was started{links}.",
        "If other machines are on, see whether a firewall on this one stops them, and allow the port (p2psync cannot look into the firewall"
        " itself):",
        ("sudo ufw allow {port}/tcp",),
    ),
    "watched": Kind("changes", True, "Changes are noticed at once; of {limit} folders that may be watched, {used} are."),
    "watches-short": Kind(
        "changes",
        False,
        "{used} folders are watched, of {limit} that programs of this user may watch; when there are no more, changes are noticed late.",
        "Raise the limit:",
        ("sudo sysctl fs.inotify.max_user_watches={better}",),
    ),
    "watch-limit": Kind("changes", False, "{why}", "{do}"),
    "unwatched": Kind(
        "changes",
        False,
        "Changes in {path} are noticed late, since it is not watched: {why}.",
        "Put that in order; until then it is looked through every ten minutes.",
    ),
    "clock": Kind("clock", True, "The clocks of the machines that are online agree with this one ({machines})."),
    "clock-alone": Kind("clock", True, "No other machine is online whose clock could be compared."),
    "clock-off": Kind(
        "clock",
        False,
        "The clocks of this machine and of {machine} differ by {minutes} minutes.",
        "Set the right time on the one that is wrong. Files are kept the same all the same; only the times that are shown are not right.",
    ),
    "disk": Kind("disk", True, "{free} of {total} are free on the disk of {path} ({system})."),
    "disk-low": Kind(
        "disk",
        False,
        "Only {free} of {total} are free on the disk of {path} ({system}).",
        "Make room on it: large files wait when less than a twentieth of the disk, or 1 GB, would be left.",
    ),
    "disk-shared": Kind(
        "disk",
        True,
        "{path} is on a disk of the kind {system}, where it cannot always be told whether a file is open: lock files are looked at.",
    ),
    "disk-gone": Kind("disk", False, "{path} cannot be looked at: {why}.", "Connect its disk, or put the folder back."),
    "home": Kind("home", True, "What p2psync keeps in {path} is for its own user alone."),
    "home-open": Kind(
        "home",
        False,
        "Other users of this machine can look into {path}, where p2psync keeps its history.",
        "Take that away:",
        ("chmod 700 {path}",),
    ),
    "no-home": Kind("home", True, "p2psync has kept nothing in {path} yet."),
    "no-problems": Kind("problems", True, "“p2psync status” knows of no problem of this machine."),
    "problems": Kind("problems", False, "“p2psync status” tells of {count} of this machine.", "See which:", ("p2psync status",)),
}

SHARED_SYSTEMS = ("nfs", "cifs", "smb", "fuse", "9p", "afs", "ceph", "glusterfs", "virtiofs", "vboxsf")
"""File systems on which other machines may work too, or whose leases say nothing; by the beginning of their names."""
LOW_SHARE, LOW = 20, 1_000_000_000
"""A disk is short of room when less than a twentieth of it is free, and less than 1 GB."""
NEAR = 0.8
"""Of the watches: beyond it the next large folder may be one too many."""


def finding(code: str, **facts: object) -> dict[str, Any]:
    """One line of the doctor's: about, code, ok, sentence, action, commands."""
    kind = FINDINGS[code]
    return {
        "about": kind.about,
        "code": code,
        "ok": kind.ok,
        "sentence": filled(kind.sentence, facts),
        "action": filled(kind.action, facts) or None,
        "commands": ready(kind.commands, facts),
    }


def is_shared(system: str) -> bool:
    """Whether a file system of this name is one of those where leases say little."""
    return system.lower().startswith(SHARED_SYSTEMS)


def is_low(free: int, total: int) -> bool:
    """Whether a disk is short of room; in bytes."""
    return free < min(total // LOW_SHARE, LOW)
