"""An answer that ends before a text of the asker's."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class StopTexts:
    """Passes pieces on and holds back what may be the beginning of a stop."""

    stops: Sequence[str]
    has_stopped: bool = False
    _held: str = ""

    def add(self, piece: str) -> str:
        """What may be shown now."""
        if self.has_stopped:
            return ""
        text = self._held + piece
        found = [place for place in (text.find(stop) for stop in self.stops) if place >= 0]
        if found:
            self.has_stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self.stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """What was held back when the answer ended by itself."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
