import numpy as np
import pytest

from edge_medgemma.runtime.slicing.sampling import MAX_SLICES, sample_slices


def google_notebook_indices(count: int) -> list[int]:
    """The loop of high_dimensional_ct_hugging_face.ipynb, as published."""
    return [round(i / 85 * (count - 1)) for i in range(1, 86)]


@pytest.mark.parametrize("count", [86, 100, 140, 511, 2000])
def test_long_stacks_are_sampled_as_google_does(count: int) -> None:
    picks = sample_slices(count)
    assert picks.tolist() == google_notebook_indices(count)
    assert len(set(picks.tolist())) == MAX_SLICES
    assert picks[-1] == count - 1


@pytest.mark.parametrize("count", [1, 28, 85])
def test_short_stacks_are_taken_whole(count: int) -> None:
    np.testing.assert_array_equal(sample_slices(count, 85), np.arange(count))


def test_fewer_slices_are_spread_evenly() -> None:
    assert sample_slices(28, 4).tolist() == [7, 14, 20, 27]
    assert sample_slices(28, 1).tolist() == [27]


@pytest.mark.parametrize(("count", "maximum"), [(0, 85), (5, 0), (5, -1)])
def test_no_slices_is_an_error(count: int, maximum: int) -> None:
    with pytest.raises(ValueError, match="both must be >= 1"):
        sample_slices(count, maximum)
