"""The tree of errors, by reach.

    P2psyncError
    ├── UserError       a person can mend it: the docstring is the sentence they read; exit code 1
    ├── PeerError       costs one link, nothing else
    ├── MandateError    this mandate is looked at again after a scan
    └── MandateHalted   waits for a person, and is persisted

Anything else that is raised is a bug: the keeper logs it, drops that task's memory and rebuilds it from the ledger.

The docstring of a class is its message; ``{fields}`` are filled from the keyword arguments. Its last sentence says what to do next, so
that whoever shows an error can set the ``cause`` and the ``action`` apart.
"""

import inspect
import re


class P2psyncError(Exception):
    """Something went wrong in p2psync."""

    def __init__(self, **facts: object) -> None:
        self.facts = facts
        super().__init__(template(type(self)).format(**facts))

    @property
    def cause(self) -> str:
        """What is wrong: the message without its last sentence."""
        return parted(template(type(self)))[0].format(**self.facts)

    @property
    def action(self) -> str:
        """What to do next: the last sentence of the message; empty when it has only one."""
        return parted(template(type(self)))[1].format(**self.facts)

    @property
    def code(self) -> str:
        """The stable name of this error: its class name in kebab-case, as scripts may match on it."""
        return code_of(type(self))


def code_of(error: type[P2psyncError]) -> str:
    """The stable name of the errors of a class."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", error.__name__).lower()


def template(error: type[P2psyncError]) -> str:
    """The message of a class, with its ``{fields}``."""
    return inspect.cleandoc(error.__doc__ or "").replace("\n", " ")


def parted(message: str) -> tuple[str, str]:
    """A message as what is wrong and what to do: its last sentence, which is empty when there is only one."""
    before, dot, last = message.rpartition(". ")
    return (before + ".", last) if dot else (message, "")


class UserError(P2psyncError):
    """p2psync cannot do that."""


class PeerError(P2psyncError):
    """The other machine sent something that is not allowed."""


class MandateError(P2psyncError):
    """The mandate could not be brought forward: {why}."""


class MandateHalted(P2psyncError):
    """The mandate waits for a person: {why}."""


class BadName(UserError):
    """The name “{name}” cannot be used: {why}. Choose another one."""


class BadPath(UserError):
    """The path “{path}” cannot be shared: {why}. Rename it, and it will be taken."""


class Malformed(PeerError):
    """What the other side sent is not well formed: {why}."""
