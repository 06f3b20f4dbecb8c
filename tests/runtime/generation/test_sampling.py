import numpy as np
import pytest

from edge_medgemma.runtime.generation.sampling import Sampling, choose_token, log_softmax

LOGITS = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))


def _shares(sampling: Sampling, draws: int = 4000) -> np.ndarray:
    generator = np.random.default_rng(7)
    tokens = [choose_token(LOGITS, sampling, generator)[0] for _ in range(draws)]
    return np.bincount(tokens, minlength=4) / draws


def test_greedy_takes_the_most_likely_and_reports_its_probability() -> None:
    token, logprob = choose_token(LOGITS, Sampling(), np.random.default_rng(0))
    assert token == 0
    assert logprob == pytest.approx(np.log(0.5), abs=1e-6)


def test_a_logprob_is_that_of_the_whole_vocabulary() -> None:
    logits = np.random.default_rng(0).standard_normal(200_000).astype(np.float32) * 4
    expected = log_softmax(logits)
    for sampling in (Sampling(), Sampling(1.0, top_k=50)):
        token, logprob = choose_token(logits, sampling, np.random.default_rng(1))
        assert logprob == pytest.approx(expected[token], abs=1e-5)
    with_all = [
        choose_token(logits, Sampling(1.0, 0, 1e-9), np.random.default_rng(i))[0] for i in (0, 1)
    ]
    assert with_all == [int(logits.argmax())] * 2


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(1.0, top_k=0, top_p=1.0), [0.5, 0.3, 0.15, 0.05]),
        (Sampling(1.0, top_k=2, top_p=1.0), [0.625, 0.375, 0, 0]),
        (Sampling(1.0, top_k=0, top_p=0.7), [0.625, 0.375, 0, 0]),
        (Sampling(1.0, top_k=0, top_p=0.4), [1, 0, 0, 0]),
        (Sampling(0.5, top_k=2, top_p=1.0), [0.25 / 0.34, 0.09 / 0.34, 0, 0]),
    ],
)
def test_shares_follow_the_truncated_distribution(
    sampling: Sampling, expected: list[float]
) -> None:
    np.testing.assert_allclose(_shares(sampling), expected, atol=0.03)


@pytest.mark.parametrize("bad", [{"temperature": -1}, {"top_k": -1}, {"top_p": 0}, {"top_p": 2}])
def test_nonsense_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Sampling(**bad)


def test_log_softmax_survives_large_logits() -> None:
    result = log_softmax(np.array([[1e4, 0, -1e4]], np.float32))
    np.testing.assert_allclose(result, [[0, -1e4, -2e4]])
