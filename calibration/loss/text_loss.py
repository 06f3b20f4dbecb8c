"""What an engine loses on text: its distribution of the next token against the float model's."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.generation.sampling import log_softmax

Array = NDArray[np.float32]

LARGEST_SURPRISE = 700.0
"""Nats; the exponential of more is no number that JSON has."""


@dataclass(frozen=True, slots=True)
class TextLoss:
    """The float model against an engine, at every position of text that neither was fitted to."""

    positions: int
    kl_nats: float
    """Mean KL(float || engine)"""
    median_kl_nats: float
    top1_agreement: float
    perplexity: float
    float_perplexity: float

    def __str__(self) -> str:
        return (
            f"KL {self.kl_nats:.4f} nats (median {self.median_kl_nats:.4f}), the likeliest token is "
            f"the same at {self.top1_agreement:.1%} of {self.positions} positions, perplexity "
            f"{self.perplexity:.2f} (float {self.float_perplexity:.2f})"
        )


def text_loss(expected: Array, actual: Array, next_ids: NDArray[np.int64]) -> TextLoss:
    """Compare logits [positions, vocabulary] of the float model and of an engine.

    `next_ids` [positions] are the tokens that follow in the text.
    """
    kl = np.empty(len(expected))
    likelihoods = np.empty((2, len(expected)))
    with np.errstate(all="ignore"):  # what comes of logits that are no numbers is no number
        for row, next_id in enumerate(next_ids):  # one at a time: a vocabulary is a megabyte
            log_p, log_q = log_softmax(expected[row]), log_softmax(actual[row])
            kl[row] = (np.exp(log_p) * (log_p - log_q)).sum()
            likelihoods[:, row] = log_q[next_id], log_p[next_id]
    surprise = np.minimum(-likelihoods.mean(axis=1), LARGEST_SURPRISE)
    perplexity, float_perplexity = np.exp(surprise).tolist()
    return TextLoss(
        positions=len(kl),
        kl_nats=float(kl.mean()),
        median_kl_nats=float(np.median(kl)),
        top1_agreement=float((expected.argmax(-1) == actual.argmax(-1)).mean()),
        perplexity=perplexity,
        float_perplexity=float_perplexity,
    )
