"""The float32 engine of real weights is transformers' own model, and so is its shuffled twin."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from real_weights.bounds import FP32_KL_NATS, SHUFFLED_LOGITS
from real_weights.scores import score
from real_weights.table import add_row

from edge_medgemma.export.verification.run import verify_engine
from edge_medgemma.runtime.generation.engine import Engine


def reference(checkpoint: Path) -> Any:
    """transformers' model in float32."""
    import torch
    from transformers import Gemma3ForConditionalGeneration

    return Gemma3ForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()


def logits(checkpoint: Path, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """[tokens, vocabulary] of a text, in one pass."""
    import torch

    with torch.inference_mode():
        found: NDArray[np.float32] = reference(checkpoint)(torch.from_numpy(ids[None])).logits[0]
    return np.asarray(found)


def test_prompts_are_answered_as_transformers_does(fp32: Engine, checkpoint: Path) -> None:
    for one in verify_engine(fp32, checkpoint):
        assert one.logits is not None and one.greedy is not None, one
        add_row(
            f"fp32 against transformers: {one.prompt}, {one.tokens} tokens",
            f"{one.logits.kl_nats:.1e}",
            f"{one.greedy.equal} of {one.greedy.tokens} tokens",
            bound=f"{FP32_KL_NATS:.0e}",
        )
        assert one.logits.kl_nats < FP32_KL_NATS, one
        assert one.greedy.equal == one.greedy.tokens, one


def test_a_text_of_more_than_the_window_and_its_shuffled_twin(
    checkpoint: Path,
    shuffled: Path,
    ids: NDArray[np.int64],
    float_logits: NDArray[np.float32],
) -> None:
    expected = logits(checkpoint, ids)
    found = score(ids, expected, float_logits)
    add_row(
        f"fp32 against transformers: the text, {len(ids)} tokens",
        f"{found.kl_mean:.1e} / {found.kl_median:.1e}",
        f"{found.top1:.1%}",
        f"{found.perplexity:.2f}",
        f"{FP32_KL_NATS:.0e}",
    )
    assert found.kl_mean < FP32_KL_NATS
    assert found.top1 == 1
    difference = np.abs(logits(shuffled, ids) - expected).max() / np.abs(expected).max()
    add_row("channels shuffled, largest difference of a logit", f"{difference:.1e} of the largest")
    assert difference < SHUFFLED_LOGITS
