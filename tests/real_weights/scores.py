"""How far logits are from a reference, token by token over a text."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.generation.sampling import log_softmax

ROWS = 32
"""Scored at once: the vocabulary is large."""


@dataclass(frozen=True, slots=True)
class Score:
    """Over the positions of a text that another token follows."""

    kl_mean: float
    """Nats, KL(reference || other)."""
    kl_median: float
    top1: float
    """Share of positions with the reference's most likely token."""
    perplexity: float
    """Of the text itself."""


def score(
    ids: NDArray[np.int64], reference: NDArray[np.float32], other: NDArray[np.float32]
) -> Score:
    """Compare logits [tokens, vocabulary] that were read off behind every token of `ids`."""
    if not len(ids) == len(reference) == len(other):
        raise ValueError(f"{len(ids)} tokens, logits of {len(reference)} and {len(other)}")
    divergences: list[NDArray[np.float64]] = []
    surprise, equal = 0.0, 0
    for first in range(0, len(ids) - 1, ROWS):
        rows = slice(first, min(first + ROWS, len(ids) - 1))
        expected = log_softmax(reference[rows])
        found = log_softmax(other[rows])
        divergences.append((np.exp(expected) * (expected - found)).sum(-1))
        equal += int((expected.argmax(-1) == found.argmax(-1)).sum())
        following = ids[rows.start + 1 : rows.stop + 1]
        surprise -= float(found[np.arange(len(following)), following].sum())
    kl = np.concatenate(divergences)
    return Score(
        float(kl.mean()), float(np.median(kl)), equal / len(kl), math.exp(surprise / len(kl))
    )
