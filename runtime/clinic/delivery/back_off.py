"""When to try again: soon at first, then ever later up to an hour, for ever."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

FIRST_S = 5.0
LONGEST_S = 3600.0


@dataclass(slots=True)
class BackOff:
    """Waits of everything that can fail, by name; of this process alone, for clocks may be wrong."""

    clock: Callable[[], float]
    """Monotonic seconds."""
    chance: Callable[[], float] = random.random
    """From 0 to 1: a quarter of each wait, so that boxes that failed together do not return together."""
    _failures: dict[str, int] = field(default_factory=dict, init=False)
    _due_s: dict[str, float] = field(default_factory=dict, init=False)

    def is_due(self, name: str) -> bool:
        """Whether it may be tried now."""
        return self.clock() >= self._due_s.get(name, float("-inf"))

    def failed(self, name: str) -> None:
        """Wait twice as long as after the failure before."""
        failures = self._failures.get(name, 0)
        self._failures[name] = min(failures + 1, 32)
        self.wait(name, min(LONGEST_S, FIRST_S * 2.0**failures))

    def wait(self, name: str, seconds: float) -> None:
        """Not before so long, less up to a quarter."""
        self._due_s[name] = self.clock() + seconds * (1 - 0.25 * self.chance())

    def went_well(self, name: str) -> None:
        """Forget its failures."""
        self._failures.pop(name, None)
        self._due_s.pop(name, None)
