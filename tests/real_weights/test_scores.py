import math

import numpy as np
import pytest
from real_weights.scores import score

IDS = np.array([2, 0, 1, 0])


def test_two_distributions_by_hand() -> None:
    even = np.zeros((4, 3), np.float32)
    tilted = even.copy()
    tilted[:, 0] = math.log(2)  # 1/2, 1/4, 1/4
    found = score(IDS, even, tilted)
    assert found.kl_mean == pytest.approx(math.log(4) * 2 / 3 + math.log(2) / 3 - math.log(3))
    assert found.kl_median == pytest.approx(found.kl_mean)
    assert found.perplexity == pytest.approx((2 * 4 * 2) ** (1 / 3))
    assert found.top1 == 1


def test_nothing_is_said_of_the_last_token() -> None:
    reference = np.random.default_rng(0).standard_normal((4, 3), np.float32)
    other = reference.copy()
    other[-1] = 0, 9, 0
    assert score(IDS, reference, other).kl_mean == 0
    other[1, reference[1].argmin()] = 9
    assert score(IDS, reference, other).top1 == pytest.approx(2 / 3)


def test_other_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="4 tokens, logits of 4 and 3"):
        score(IDS, np.zeros((4, 3), np.float32), np.zeros((3, 3), np.float32))
