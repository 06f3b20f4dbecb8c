"""Who looked at which study, in the audit: once for a page that is loaded again and again."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_medgemma.runtime.clinic.page.access.refusals import note
from edge_medgemma.runtime.clinic.state_folder import StateFolder

VIEWED = "viewed"

REPEAT_S = 600.0
"""One line in so many seconds for one study and one visitor."""

MOST_KEYS = 5000


@dataclass(slots=True)
class ViewLog:
    """Writes views into the audit."""

    state: StateFolder
    clock: Callable[[], float] = time.monotonic
    _last: OrderedDict[tuple[str, str], float] = field(default_factory=OrderedDict)

    async def note(self, who: str, study_key: str) -> None:
        """A visitor is shown a study."""
        now, key = self.clock(), (who, study_key)
        last = self._last.get(key)
        if last is not None and now - last < REPEAT_S:
            return
        self._last[key] = now
        self._last.move_to_end(key)
        while len(self._last) > MOST_KEYS:
            self._last.popitem(last=False)
        await note(self.state, VIEWED, who, study_key)
