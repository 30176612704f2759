"""The tree of errors, by reach.

    P2psyncError
    ├── UserError       a person can mend it: the docstring is the sentence they read; exit code 1
    ├── PeerError       costs one link, nothing else
    ├── MandateError    this mandate is looked at again after a scan
    └── MandateHalted   waits for a person, and is persisted

Anything else that is raised is a bug: the keeper logs it, drops that task's memory and rebuilds it from the ledger.

The docstring of a class is its message; ``{fields}`` are filled from the keyword arguments.
"""

import inspect
import re


class P2psyncError(Exception):
    """Something went wrong in p2psync."""

    def __init__(self, **facts: object) -> None:
        self.facts = facts
        template = inspect.cleandoc(type(self).__doc__ or "").replace("\n", " ")
        super().__init__(template.format(**facts))

    @property
    def code(self) -> str:
        """The stable name of this error: its class name in kebab-case, as scripts may match on it."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", type(self).__name__).lower()


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
