"""How long a further pass will take, estimated from the last one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

COST_MARGIN = 1.2
"""Later slices take longer to prefill, as there is more to attend to."""

QUESTION_EXPONENT = 1.5
"""Key slices are searched with more questions (square root of the slices) over more slices each."""

PREFILL_SHARE = 0.5
"""Prefilling a slice takes at most this share of the time of encoding it (measured: 0.2 to 0.36 on
CPUs). Only the size of the first pass of a run depends on it; later ones are measured."""


@dataclass(frozen=True, slots=True)
class PassCost:
    """Seconds of one pass, the loading of the engine's parts included."""

    vision_s: float
    """Time to encode one slice."""
    prefill_s: float
    """Time to prefill one slice."""
    questions_s: float
    """Time for scores and key slices."""
    slices: int

    @classmethod
    def of(cls, seconds: Mapping[str, float], num_encoded: int, slices: int) -> "PassCost":
        """The cost of a pass that took so many seconds per stage and prefilled all its slices.

        Without grounds for an answer nothing is prefilled or asked.
        """
        return cls(
            vision_s=seconds.get("vision", 0.0) / max(num_encoded, 1),
            prefill_s=seconds.get("prefill", 0.0) / slices,
            questions_s=seconds.get("score", 0.0) + seconds.get("evidence", 0.0),
            slices=slices,
        )

    @classmethod
    def guess(cls, vision_s: float) -> "PassCost":
        """The cost before any pass, from the seconds to encode one slice."""
        return cls(vision_s, PREFILL_SHARE * vision_s, 0.0, 1)

    def estimate_s(self, num_new: int, slices: int, *, with_baseline: bool) -> float:
        """Upper estimate of a pass over `slices` slices, `num_new` of them not yet encoded.

        `with_baseline` adds a blank baseline of as many slices, of which one is encoded.
        """
        num_encoded = num_new + with_baseline
        num_prefilled = slices * (1 + with_baseline)
        questions_s = self.questions_s * math.pow(slices / self.slices, QUESTION_EXPONENT)
        slices_s = self.vision_s * num_encoded + self.prefill_s * num_prefilled
        return COST_MARGIN * (slices_s + questions_s)
