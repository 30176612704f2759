"""How long to wait before the next try: doubling, with a share of chance, so that machines do not knock in step."""

from dataclasses import dataclass


@dataclass
class Backoff:
    """Waits of ``first`` seconds, doubled after each failure up to ``longest``; between half and all of that is waited."""

    first: float = 1.0
    longest: float = 600.0
    failures: int = 0

    def failed(self, chance: float) -> float:
        """Seconds to wait after one more failure; ``chance`` is a random number in [0, 1)."""
        span = min(self.first * 2.0 ** min(self.failures, 30), self.longest)
        self.failures += 1
        return span * (0.5 + chance / 2)

    def succeeded(self) -> None:
        """The next failure waits as briefly as the first."""
        self.failures = 0
