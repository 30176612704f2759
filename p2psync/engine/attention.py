"""Everything that keeps a file from being up to date, as a code with a sentence and what to do next.

A state that is not "synced" always names the file, the machine, the reason and the next action (docs/status-api.md lists the codes).
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

FileState: TypeAlias = Literal["synced", "sending", "receiving", "waiting", "conflict", "missing", "halted", "error"]

ORDER: tuple[FileState, ...] = ("halted", "conflict", "error", "missing", "waiting", "receiving", "sending", "synced")
"""The gravest first: a folder shows the gravest state of what is in it."""


class Reason(NamedTuple):
    """One entry of the table: the state it stands for, the sentence, and the next action, which also says so when it is to wait.

    ``commands`` follow the action, one or the other of them, ready to be copied into a shell.
    """

    state: FileState
    sentence: str
    action: str
    commands: tuple[str, ...] = ()


THIS_MACHINE = "this machine"

REASONS: dict[str, Reason] = {
    "conflict": Reason(
        "conflict",
        "“{path}” was changed by {people} without knowing of each other; every version is kept.",
        "See the versions, and choose:",
        ("p2psync conflicts {mandate}",),
    ),
    "open-here": Reason(
        "waiting", "A newer version of “{path}” waits: the file is open on this machine{by}.", "Close the file in that program."
    ),
    "locked-here": Reason(
        "waiting",
        "A newer version of “{path}” waits: the lock file “{lock}” beside it says that the file is open{by}.",
        "Close the file in that program. If it is open nowhere any more, as after a crash, delete that lock file.",
    ),
    "being-read": Reason(
        "waiting",
        "“{path}” is being read on this machine; what is new in it is sent afterwards.",
        "Nothing to do: it goes on by itself when all of it has been read.",
    ),
    "still-written": Reason(
        "waiting",
        "“{path}” is being written{by} on this machine; what is saved in it is sent at the next pause, or after 10 seconds.",
        "Nothing to do: it is shared by itself when that program pauses.",
    ),
    "never-pauses": Reason(
        "waiting",
        "“{path}” has changed every time it was read, since it is being written{by} on this machine without a pause; half a version"
        " is never sent.",
        "Save, then let that program rest for a moment, or close the file in it.",
    ),
    "fetching": Reason(
        "receiving",
        "A newer version of “{path}” by {people} is coming in.",
        "Nothing to do: it is put in place by itself when all of it is here.",
    ),
    "sending": Reason(
        "sending",
        "“{path}” is on its way to {people}.",
        "Nothing to do: it goes on by itself while both machines are on. If it lasts, see what p2psync says there.",
    ),
    "nobody-has-it": Reason(
        "waiting",
        "A newer version of “{path}” by {people} is announced, but no machine that has it is online.",
        "Switch on {machine} or another machine that has it, with p2psync running; it goes on by itself.",
    ),
    "space-short": Reason(
        "waiting",
        "A newer version of “{path}” waits: the disk that holds {place} has only {free} left of {total}, and {floor} are left alone.",
        "Make room on that disk; it is fetched by itself then. “p2psync status” tells how much the history takes.",
    ),
    "damaged-file": Reason(
        "error",
        "“{path}” at {location} no longer holds what was saved, though no program wrote to it: the disk has damaged it. Nothing of that"
        " was sent.",
        "Check the disk, and have p2psync put the good version back:",
        ("p2psync restore {mandate} {path}",),
    ),
    "missing-file": Reason(
        "missing",
        "“{path}” is no longer at {location}; nothing was deleted elsewhere.",
        "Put it back, have p2psync bring the shared version back, or take it out of the mandate for everybody:",
        ("p2psync restore {mandate} {path}", "p2psync detach {mandate} {path}"),
    ),
    "missing-root": Reason(
        "missing",
        "The folder {location} is not there on this machine (a disk or share that is not mounted?); nothing was deleted elsewhere.",
        "Mount the disk again, or put the folder back; an empty one will do, if its files are to come from the other machines.",
    ),
    "many-deletions": Reason(
        "halted",
        "{count} of {total} files in “{path}” vanished at once on this machine; they were not deleted elsewhere.",
        "Put them back, or have p2psync do it with the first command; only if they were deleted on purpose, delete them for everybody"
        " with the second:",
        ("p2psync restore {mandate} {path}", "p2psync confirm {mandate} {path}"),
    ),
    "root-replaced": Reason(
        "halted",
        "{location} is not the folder that it was, and {count} of {total} files are not in it; they were not deleted elsewhere.",
        "Mount the right disk, or have p2psync put the files into this folder with the first command; only if they were deleted on"
        " purpose, delete them for everybody with the second:",
        ("p2psync restore {mandate} {path}", "p2psync confirm {mandate} {path}"),
    ),
    "root-differs": Reason(
        "halted",
        "{location} is not the folder that it was, and {count} of {total} files in it are others than those of “{path}”; nothing of it was"
        " shared.",
        "Put the right folder back there, or an empty one, into which “p2psync restore” then brings the files; only if this one is meant,"
        " share what is in it:",
        ("p2psync confirm {mandate} {path}",),
    ),
    "older-copies": Reason(
        "halted",
        "{count} of {total} files in “{path}” became older or empty at once on this machine (a backup that was put back?); that was not"
        " shared.",
        "Bring the shared versions back with the first command; only if what stands here now is meant, share it with the second:",
        ("p2psync restore {mandate} {path}", "p2psync confirm {mandate} {path}"),
    ),
    "older-copy": Reason(
        "halted",
        "“{path}” became older or empty on this machine, and {count} of {total} files at once (a backup that was put back?); that was not"
        " shared.",
        "Bring the shared version back with the first command; only if what stands here now is meant, share it with the second:",
        ("p2psync restore {mandate} {path}", "p2psync confirm {mandate} {path}"),
    ),
    "bad-name": Reason("error", "{why}", "{do}"),
    "name-collision": Reason(
        "error",
        "“{path}” and “{other}” differ only by case or accents; on some machines they would be one file.",
        "Rename one of the two.",
    ),
    "unreadable": Reason("error", "{why}", "{do}"),
    "unwritable": Reason("error", "A newer version of “{path}” waits, for it cannot be put in place on this machine. {why}", "{do}"),
    "in-the-way": Reason(
        "error",
        "The newer version of “{path}” cannot be put in place: something else stands at {location}.",
        "Move that elsewhere; the version then goes in.",
    ),
    "left-over": Reason(
        "waiting",
        "The folder “{path}” was deleted on another machine; something that is not shared is still in {location}.",
        "Move that elsewhere, or delete the folder here too.",
    ),
    "two-kinds": Reason(
        "error",
        "Under the name “{path}” a file was attached on one machine and a folder on another; {location} is not shared meanwhile.",
        "Take that name out of the mandate for everybody, which deletes nothing, then attach both under different names:",
        ("p2psync detach {mandate} {path}",),
    ),
    "reader": Reason(
        "error",
        "“{path}” was changed on this machine, whose role in “{mandate}” is reader; the change is not shared.",
        "Ask {owners} for the role of editor, or take the shared version back:",
        ("p2psync restore {mandate} {path}",),
    ),
    "reader-new": Reason(
        "error",
        "“{path}” was added on this machine, whose role in “{mandate}” is reader; it is not shared.",
        "Ask {owners} for the role of editor, or move it elsewhere.",
    ),
}


@dataclass(frozen=True)
class Attention:
    """Why one path is not up to date: a code of the table, the facts for its sentence, since when (ms since 1970; None: not known), and
    who.
    """

    code: str
    since_ms: int | None
    facts: dict[str, object] = field(default_factory=dict)
    who: str | None = None

    @property
    def state(self) -> FileState:
        """The state shown."""
        return REASONS[self.code].state

    @property
    def machine(self) -> str:
        """The machine that it is about: this one, unless the facts name another."""
        return str(self.facts.get("machine", THIS_MACHINE))

    def reason(self, **known: object) -> str:
        """The sentence for people; ``known`` adds facts such as the path and the mandate."""
        return filled(REASONS[self.code].sentence, self.facts | known)

    def action(self, **known: object) -> str:
        """What to do next."""
        return filled(REASONS[self.code].action, self.facts | known)

    def commands(self, **known: object) -> list[str]:
        """The commands that the action speaks of, each ready to be copied into a shell."""
        return ready(REASONS[self.code].commands, self.facts | known)


def filled(sentence: str, facts: Mapping[str, object]) -> str:
    """A sentence with its ``{fields}`` filled; what is not known leaves a gap."""
    return sentence.format_map(_Facts(facts))


def ready(commands: tuple[str, ...], facts: Mapping[str, object]) -> list[str]:
    """Commands with their ``{fields}`` filled, each word quoted for a shell."""
    return [filled(command, {name: shlex.quote(str(fact)) for name, fact in facts.items()}) for command in commands]


class _Facts(dict[str, object]):
    def __missing__(self, key: str) -> str:
        return ""
