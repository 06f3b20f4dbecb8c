import numpy as np
import pytest

from edge_medgemma.runtime.triage.scoring.evidence import MAX_KEY_SLICES, key_slices, slice_effects


@pytest.mark.parametrize("slices", [1, 2, 16, 17, 24, 85])
@pytest.mark.parametrize("width", [1, 2])
def test_the_slices_that_carry_the_score_are_found_at_bounded_cost(slices, width) -> None:
    for first in range(slices - width + 1):
        asked = 0
        lesion = set(range(first, first + width))

        def score_hiding(variants, lesion=lesion):
            nonlocal asked
            asked += len(variants)
            return np.array([5.0 if lesion - hidden else 0.0 for hidden in variants])

        effects = slice_effects(slices, score_hiding)
        assert key_slices(effects) == sorted(lesion)
        assert effects[first] == (5.0 if width == 1 else 2.5)
        assert asked <= max(2 + 2 * 16, 6 * slices**0.5 + 6)


def test_key_slices_are_few_positive_and_in_spatial_order() -> None:
    effects = {i: float(i) for i in range(10)} | {10: -3.0, 11: 0.0}
    assert key_slices(effects) == list(range(10 - MAX_KEY_SLICES, 10))
    assert key_slices({0: -1.0, 1: 0.0}) == []


def test_a_variant_without_a_finite_score_is_no_evidence() -> None:
    def score_hiding(variants):
        return np.array([np.nan if hidden == {0} else 1.0 for hidden in variants])

    assert slice_effects(3, score_hiding) == {1: 0.0, 2: 0.0}
