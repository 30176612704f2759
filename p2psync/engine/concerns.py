"""What keeps machines from agreeing beside single paths: a participant who is behind, a ticket in use, a clock that is wrong.

Each is a code with a sentence and what to do next, like the reasons of engine/attention (docs/status-api.md lists both).
"""

from typing import Any, Literal, NamedTuple, TypeAlias

from p2psync.engine.attention import THIS_MACHINE, filled, ready

About: TypeAlias = Literal["machine", "mandate", "participant", "ticket", "name"]


class Concern(NamedTuple):
    """One entry of the table: what it is about, the sentence, the next action, and commands ready to be copied.

    ``person``: it does not go on by itself; somebody has to decide or do something.
    """

    about: About
    sentence: str
    action: str
    commands: tuple[str, ...] = ()
    person: bool = False


CONCERNS: dict[str, Concern] = {
    # ---- of this machine, among the problems
    "starting": Concern(
        "machine", "p2psync is still opening the mandates of this machine.", "Nothing to do: it goes on by itself when they are open."
    ),
    "joining": Concern(
        "machine",
        "The ticket for “{mandate}” is in use; no machine of that mandate has answered yet.",
        "Switch on a machine that takes part, for instance {machine}, in the same network; it goes on by itself.",
    ),
    "ticket-contested": Concern(
        "machine",
        "A ticket of “{mandate}” was used on {count} machines; none of them takes part until an owner decides.",
        "Ask who has it, and invite the right person with a new ticket:",
        ("p2psync participants {mandate}", "p2psync invite {mandate} --for NAME"),
        person=True,
    ),
    "clock-differs": Concern(
        "machine",
        "The clocks of this machine and of {machine} differ by {minutes} minutes.",
        "Set the right time on the one that is wrong. Files are kept the same all the same; only the times that are shown are not right.",
    ),
    "no-answer": Concern(
        "machine",
        "{machine} is there, but has not answered for a minute; what it has is asked of others.",
        "See whether that machine has stopped, or its disk is busy.",
    ),
    # ---- of a mandate
    "untold": Concern(
        "mandate",
        "No other machine has told this one yet that it takes part in “{mandate}”, and what is in it.",
        "Switch on a machine that takes part, with p2psync running; it goes on by itself.",
    ),
    "looking": Concern(
        "mandate", "“{mandate}” is being looked through.", "Nothing to do: it goes on by itself when all of it has been looked at."
    ),
    # ---- of a participant
    "just-come": Concern(
        "participant",
        "{machine} has just come online and has not told yet what it has of “{mandate}”.",
        "Nothing to do: it tells by itself within a few seconds.",
    ),
    "catching-up": Concern(
        "participant",
        "{machine} has not everything of “{mandate}” yet{lacks}.",
        "Nothing to do: it goes on by itself while both machines are on. If it lasts, see what p2psync says on {machine}.",
    ),
    "other-books": Concern(
        "participant",
        "{machine} and this machine are still telling each other what was done in “{mandate}”.",
        "Nothing to do: it goes on by itself while both machines are on.",
    ),
    "offline": Concern(
        "participant",
        "{machine} is not online.",
        "Switch it on, with p2psync running, in the same network; it catches up by itself.",
    ),
    "never-met": Concern(
        "participant",
        "{machine} takes part, and this machine has not met it yet.",
        "Switch it on, with p2psync running, in the same network. If it is, “p2psync doctor” says whether it can be reached:",
        ("p2psync doctor",),
    ),
    # ---- of an invitation
    "ticket-open": Concern(
        "ticket",
        "The ticket for {person} has not been used yet.",
        "Take the file to {person}'s machine, where this uses it:",
        ("p2psync subscribe FILE.crsync",),
    ),
    # ---- of a name that is asked about, and is not among what is shared
    "deleted": Concern(
        "name",
        "“{path}” was deleted by {people}, for everybody.",
        "Nothing to do if that was meant. If not, bring the last version back:",
        ("p2psync history {mandate} {path}", "p2psync restore {mandate} {path} --version {version}"),
    ),
    "detached": Concern(
        "name",
        "“{path}” was taken out of “{mandate}” by {people}; what was on the disks stayed there, and is not shared any more.",
        "Nothing to do if that was meant. If not, attach it again:",
        ("p2psync attach {mandate} PATH",),
    ),
    "conflict-copy": Concern(
        "name",
        "“{asked}” is the version by {people} of “{path}”, which is in conflict; it stands beside it until somebody chooses.",
        "See the versions, and choose:",
        ("p2psync conflicts {mandate}",),
        person=True,
    ),
    "own-file": Concern(
        "name",
        "“{path}” belongs to p2psync, which keeps there what is not complete yet; it is never shared.",
        "Nothing to do: it goes by itself.",
    ),
    "work-file": Concern(
        "name",
        "“{path}” is a file that a program makes for itself while it works ({kind}), and is never shared.",
        "Nothing to do: it goes when that program is closed. What is to be shared has to have another name.",
    ),
    "unfit-name": Concern(
        "name",
        "“{path}” is not shared: {why}.",
        "Rename it, and it will be taken.",
        person=True,
    ),
    "not-recorded": Concern(
        "name",
        "“{path}” is on this disk, and has not been recorded yet.",
        "Nothing to do: p2psync looks at it within a few seconds of the last change. If it lasts, see whether it can watch this folder:",
        ("p2psync doctor",),
    ),
}


def told(code: str, *, machine: str = THIS_MACHINE, since_ms: int | None = None, **facts: object) -> dict[str, Any]:
    """One concern as the status tells of it: code, reason, machine, action, commands, since (ms since 1970, or None)."""
    concern = CONCERNS[code]
    known = {"machine": machine, **facts}
    return {
        "code": code,
        "reason": filled(concern.sentence, known),
        "machine": machine,
        "action": filled(concern.action, known),
        "commands": ready(concern.commands, known),
        "since": since_ms,
    }
