"""Key slices: those that the score of a finding depends on.

A slice is worth the mean of two changes of the score: what is lost when the question may not see
it, and what is won when the question may see nothing else. (These are the last and the first term
of its Shapley value.) The loss alone would miss a lesion that is also on the slice next to it. Only
the question is blinded: what later slices took over from a hidden one stays visible to it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.slicing.volume import SliceStack
from edge_medgemma.runtime.triage.report import FindingResult, KeySlice
from edge_medgemma.runtime.triage.scoring.log_odds import AnswerTokens, log_odds

CHUNKS_BEFORE_SLICES = 1
"""The opening with the instruction; slice i is chunk i + 1 of the prefix."""

MAX_KEY_SLICES = 6
"""A report shows no more for one finding."""

GROUPING_FROM_SLICES = 17
"""Slices from which on groups are searched first and only the best are opened."""

OPENED_GROUPS = 2

ScoreHiding = Callable[[Sequence[frozenset[int]]], NDArray[np.float64]]
"""Log-odds [variants] of one finding when each set of slices (0-based, as shown) is hidden."""


def slice_effects(slices: int, score_hiding: ScoreHiding) -> dict[int, float]:
    """Log-odds that single slices are worth, for the slices that were tried.

    All slices of a short stack are tried; of a long one those of the groups that are worth most,
    for about 6 * sqrt(slices) questions in all.

    Args:
        slices: number of slices shown.
        score_hiding: asks the engine.
    """
    everything = frozenset(range(slices))
    full, none = score_hiding([frozenset(), everything])

    def effects(sets: Sequence[frozenset[int]]) -> NDArray[np.float64]:
        without = score_hiding(sets)
        alone = score_hiding([everything - one for one in sets])
        worth: NDArray[np.float64] = ((full - without) + (alone - none)) / 2
        return worth

    tried = sorted(everything)
    if slices >= GROUPING_FROM_SLICES:
        parts = np.array_split(tried, round(slices**0.5))
        groups = [frozenset(map(int, part)) for part in parts]
        group_worth = np.nan_to_num(effects(groups), nan=-np.inf)
        best = np.argsort(-group_worth, kind="stable")[:OPENED_GROUPS]
        tried = sorted(i for group in best for i in groups[group])
    values = effects([frozenset({i}) for i in tried])
    return {i: float(v) for i, v in zip(tried, values, strict=True) if np.isfinite(v)}


def key_slices(effects: dict[int, float]) -> list[int]:
    """At most `MAX_KEY_SLICES` slices with the largest effects above zero, in spatial order."""
    ranked = sorted((i for i in effects if effects[i] > 0), key=lambda i: -effects[i])
    return sorted(ranked[:MAX_KEY_SLICES])


def with_evidence(
    engine: Engine, prefix: Prefix, stack: SliceStack, result: FindingResult
) -> FindingResult:
    """A flagged finding with its key slices.

    Asks the plain question also after reasoned effort: reasoning in words would repeat what the
    hidden slices showed.
    """
    question = engine.prompt.question(result.question)
    tokens = AnswerTokens.of(engine.tokenizer)

    def score_hiding(variants: Sequence[frozenset[int]]) -> NDArray[np.float64]:
        hidden = [[i + CHUNKS_BEFORE_SLICES for i in sorted(variant)] for variant in variants]
        return log_odds(prefix.score([question] * len(hidden), hidden), tokens)

    effects = slice_effects(len(stack.slice_indices), score_hiding)
    keys = []
    for row in key_slices(effects):
        index = int(stack.slice_indices[row])
        uid = stack.series.sources[index].sop_instance_uid
        keys.append(KeySlice(index, float(stack.positions_mm[row]), uid, effects[row]))
    return replace(result, key_slices=tuple(keys))
