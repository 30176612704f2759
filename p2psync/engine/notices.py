"""The notices of one mandate: everything that keeps a path from being up to date, until it is seen that it no longer does.

A notice goes when its path is found in order. Those about what could not even be taken for a path of the mandate (a name that is not
possible, a link) go when a survey of the whole attachment does not come upon them again, or when the thing itself is seen to be gone.
"""

from collections.abc import Mapping, Set

from p2psync.engine.attention import Attention

_STRAY = ("bad-name", "unreadable")


class Notices(dict[str, Attention]):
    """What the status shows, by path."""

    def take(self, found: Mapping[str, Attention | None], surveyed: Set[str], attached: Set[str]) -> None:
        """Take in what a round found (None: in order), having surveyed some attachments, of which ``attached`` are all there are."""
        for shown, attention in found.items():
            if attention is None:
                self._settle(shown)
            elif (known := self.get(shown)) is None or (known.code, known.facts) != (attention.code, attention.facts):
                self[shown] = attention
        for shown in [s for s, a in self.items() if a.code in _STRAY and _top(s) in surveyed and found.get(s) is None]:
            del self[shown]
        for shown in [s for s in self if _top(s) not in attached and s not in found]:
            del self[shown]

    def _settle(self, shown: str) -> None:
        known = self.pop(shown, None)
        if known is not None and known.code in _STRAY:
            for below in [s for s, a in self.items() if s.startswith(f"{shown}/") and a.code in _STRAY]:
                del self[below]

    def freed(self, done: Set[str]) -> set[str]:
        """The paths that were held up by another of nearly the same name, of which something has become known now."""
        return {shown for shown, a in self.items() if a.code == "name-collision" and str(a.facts["other"]) in done}

    def with_code(self, *codes: str) -> set[str]:
        """The paths with one of these codes."""
        return {shown for shown, a in self.items() if a.code in codes}


def _top(shown: str) -> str:
    return shown.partition("/")[0]
