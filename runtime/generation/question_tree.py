"""Questions that are asked in one pass: what they begin with once, then a branch for each."""

from collections.abc import Collection, Sequence
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.generation.masks import NO_BRANCH, NO_IMAGE, TokenMeta


class QuestionTree:
    """At least one question, each of at least one token."""

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
        """Of the pass."""
        self.last_rows: NDArray[np.int64] = self._trunk + np.cumsum(self._branches) - 1
        """Row of the pass in which each question ends."""
        self.hidden_chunks = {branch: some for branch, some in enumerate(hidden_chunks) if some}
        """By number of the question."""

    def rows(self, begin: int) -> TokenMeta:
        """What the tokens of the pass are, behind a prefix of `begin` tokens."""
        text = np.full(len(self.ids), NO_IMAGE, np.int64)
        trunk = np.arange(self._trunk)
        positions = [trunk, *(self._trunk + np.arange(count) for count in self._branches)]
        numbers = np.repeat(np.arange(len(self._branches)), self._branches)
        branches = np.concatenate([np.full(self._trunk, NO_BRANCH), numbers])
        return TokenMeta(begin + np.concatenate(positions), text, text, branches)
