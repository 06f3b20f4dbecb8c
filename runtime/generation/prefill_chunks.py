"""Passes of the decoder: a chunk cut into several, or several questions joined into one."""

from collections.abc import Collection, Iterator, Sequence
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.generation.masks import NO_BRANCH, NO_IMAGE, TokenMeta
from edge_medgemma.runtime.memory.cache_geometry import MAX_PREFILL_TOKENS


def passes(images: NDArray[np.int64]) -> Iterator[slice]:
    """Parts of at most MAX_PREFILL_TOKENS tokens, cut outside images (an image may exceed it).

    Args:
        images: number of the image of each token, NO_IMAGE for text
    """
    start = 0
    while start < len(images):
        stop = min(start + MAX_PREFILL_TOKENS, len(images))
        while start < stop < len(images) and images[stop] != NO_IMAGE:
            if images[stop] != images[stop - 1]:
                break
            stop -= 1
        if stop == start:
            after = np.flatnonzero(images[start:] != images[start])
            stop = start + int(after[0]) if len(after) else len(images)
        yield slice(start, stop)
        start = stop


class QuestionTree:
    """Questions of one pass: what all begin with is read once, then a branch for each.

    At least one question, each of at least one token.
    """

    def __init__(
        self, questions: Sequence[Sequence[int]], hidden_chunks: Sequence[Collection[int]]
    ) -> None:
        """Token ids of each question, and the prefix chunks that it may not see.

        Where any question may not see all, nothing is shared: what is shared has read everything.
        """
        self._trunk = 0
        if len(questions) > 1 and not any(hidden_chunks):
            heads = zip(*(question[:-1] for question in questions), strict=False)
            self._trunk = sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, heads))
        self._branches = [len(question) - self._trunk for question in questions]
        branch_ids = (question[self._trunk :] for question in questions)
        self.ids: list[int] = [
            *questions[0][: self._trunk],
            *(i for ids in branch_ids for i in ids),
        ]
        """Token ids of the pass."""
        self.last_rows: NDArray[np.int64] = self._trunk + np.cumsum(self._branches) - 1
        """Row of the pass in which each question ends."""
        self.hidden_chunks = {branch: some for branch, some in enumerate(hidden_chunks) if some}
        """Prefix chunks that a question may not see, by its number."""

    def rows(self, begin: int) -> TokenMeta:
        """Metadata of the pass's tokens after a prefix of `begin` tokens."""
        text = np.full(len(self.ids), NO_IMAGE, np.int64)
        trunk = np.arange(self._trunk)
        positions = [trunk, *(self._trunk + np.arange(count) for count in self._branches)]
        numbers = np.repeat(np.arange(len(self._branches)), self._branches)
        branches = np.concatenate([np.full(self._trunk, NO_BRANCH), numbers])
        return TokenMeta(begin + np.concatenate(positions), text, text, branches)
