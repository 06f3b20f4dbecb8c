"""How long a guesser of passwords must wait, without locking out who knows the password.

Three counts: of one name from one address, of one address whatever the name, and of one name from
anywhere. The last holds only for addresses from which that name has never logged in: a guesser elsewhere
cannot lock a nurse out at the machine that she uses.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

LONGEST_WAIT_S = 300.0
FORGET_S = 3600.0
MOST_KEYS = 5000


@dataclass(frozen=True, slots=True)
class _Rule:
    free: int
    """Failures that cost nothing."""
    longest_wait_s: float


_PAIR = _Rule(4, LONGEST_WAIT_S)
_ADDRESS = _Rule(20, 60.0)
_NAME = _Rule(30, 60.0)


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last_s: float = 0.0


@dataclass(slots=True)
class Throttle:
    """Failures of the last hour, in memory."""

    clock: Callable[[], float] = time.monotonic
    _failures: OrderedDict[tuple[str, str], _Failures] = field(default_factory=OrderedDict)
    _known: OrderedDict[tuple[str, str], None] = field(default_factory=OrderedDict)

    def wait_s(self, address: str, name: str) -> float:
        """Seconds before this name may be tried from this address; 0 for now."""
        waits = [self._wait(("", address), _ADDRESS), self._wait((name, address), _PAIR)]
        if (name, address) not in self._known:
            waits.append(self._wait((name, ""), _NAME))
        return max(waits)

    def failed(self, address: str, name: str) -> None:
        """Count a wrong password."""
        for key in (("", address), (name, address), (name, "")):
            entry = self._failures.setdefault(key, _Failures())
            if self.clock() - entry.last_s > FORGET_S:
                entry.count = 0
            entry.count += 1
            entry.last_s = self.clock()
            self._failures.move_to_end(key)
        while len(self._failures) > MOST_KEYS:
            self._failures.popitem(last=False)

    def succeeded(self, address: str, name: str) -> None:
        """Forget what was counted against this name at this address."""
        self._failures.pop((name, address), None)
        self._failures.pop(("", address), None)
        anywhere = self._failures.get((name, ""))
        if anywhere is not None:
            anywhere.count -= 1  # the try that succeeded
        self._known[(name, address)] = None
        self._known.move_to_end((name, address))
        while len(self._known) > MOST_KEYS:
            self._known.popitem(last=False)

    def _wait(self, key: tuple[str, str], rule: _Rule) -> float:
        entry = self._failures.get(key)
        if entry is None or entry.count <= rule.free:
            return 0.0
        wait = min(2.0 ** min(entry.count - rule.free, 20), rule.longest_wait_s)
        return max(0.0, entry.last_s + wait - self.clock())
