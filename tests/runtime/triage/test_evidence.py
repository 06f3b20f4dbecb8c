import numpy as np
import pytest

from edge_medgemma.runtime.triage.evidence import MAX_KEY_SLICES, key_slices, score_drops


@pytest.mark.parametrize(("slices", "most_questions"), [(1, 1), (16, 16), (24, 15), (85, 29)])
def test_the_slice_that_carries_the_score_is_found_at_bounded_cost(slices, most_questions) -> None:
    for target in range(slices):
        asked = 0

        def score_without(variants, target=target):
            nonlocal asked
            asked += len(variants)
            return np.array([0.0 if target in hidden else 5.0 for hidden in variants])

        drops = score_drops(slices, 5.0, score_without)
        assert key_slices(drops) == [target]
        assert drops[target] == 5.0
        assert asked <= most_questions


def test_key_slices_are_few_positive_and_in_spatial_order() -> None:
    drops = {i: float(i) for i in range(10)} | {10: -3.0, 11: 0.0}
    assert key_slices(drops) == list(range(10 - MAX_KEY_SLICES, 10))
    assert key_slices({0: -1.0, 1: 0.0}) == []


def test_a_variant_without_a_finite_score_is_no_evidence() -> None:
    drops = score_drops(3, 1.0, lambda variants: np.array([np.nan, 0.0, 2.0]))
    assert drops == {1: 1.0, 2: -1.0}
