"""How long a further pass will take, judged by the last one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

PACE_MARGIN = 1.2
"""Later slices take longer to read, as there is more to attend to."""

QUESTION_EXPONENT = 1.5
"""Key slices are searched with more questions (square root of the slices) over more slices each."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of one pass, the loading of the engine's parts included."""

    vision_s: float
    """For each slice encoded."""
    prefill_s: float
    """For each slice read."""
    questions_s: float
    """For scores and key slices."""
    slices: int

    @classmethod
    def of(cls, seconds: Mapping[str, float], encoded: int, slices: int) -> "Pace":
        """From the seconds per stage of a pass that encoded some and read all of its slices."""
        return cls(
            vision_s=seconds.get("vision", 0.0) / max(encoded, 1),
            prefill_s=seconds["prefill"] / slices,
            questions_s=seconds["score"] + seconds["evidence"],
            slices=slices,
        )

    def estimate_s(self, new: int, slices: int, *, with_control: bool) -> float:
        """Upper estimate of a pass over `slices` slices, `new` of them not yet encoded.

        `with_control` adds a control of as many blank slices, of which one is encoded.
        """
        encoded = new + with_control
        read = slices * (1 + with_control)
        questions_s = self.questions_s * math.pow(slices / self.slices, QUESTION_EXPONENT)
        return PACE_MARGIN * (self.vision_s * encoded + self.prefill_s * read + questions_s)
