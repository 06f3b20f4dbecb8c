"""16,384 tokens through the float32 engine and through transformers."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from real_weights.bounds import LONG_KL_NATS
from real_weights.engines import TEXT
from real_weights.scores import score
from real_weights.table import add_row

from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prompt import Chunk

TOKENS = 16_384
LAST = 16
"""Positions that are compared, at the end."""
PASS_TOKENS = 2048
CLOSING = (
    "A newborn of two days in Kisumu breathes fast and turns blue when crying; the radiograph taken "
    "in the incubator shows a large heart and dark lungs."
)
"""New to the model, which by then knows the reports by heart."""


def long_ids(engine: Engine) -> NDArray[np.int64]:
    """The text over and over, as reports with numbers, behind the token that begins a sequence."""
    text = TEXT.read_text(encoding="utf-8")
    closing = engine.tokenizer.encode(CLOSING)
    ids = [engine.manifest.tokens.bos]
    while len(ids) < TOKENS:
        ids += engine.tokenizer.encode(f"Report {len(ids)}.\n\n{text}\n")
    return np.array([*ids[: TOKENS - len(closing)], *closing], np.int64)


def test_the_end_of_a_long_text(fp32: Engine, checkpoint: Path) -> None:
    ids = long_ids(fp32)
    prefix = fp32.new_prefix(TOKENS)
    for first in range(0, TOKENS - LAST, PASS_TOKENS):
        part = ids[first : min(first + PASS_TOKENS, TOKENS - LAST)]
        prefix.extend(Chunk(tuple(part.tolist()), 0), wants_logits=False)
    given = np.stack([prefix.extend(Chunk((int(token),), 0)) for token in ids[-LAST:]])
    expected = last_logits(checkpoint, ids)
    found = score(ids[-LAST:], expected, given)
    difference = np.abs(given - expected).max()
    add_row(
        f"fp32 against transformers behind {TOKENS - LAST:,} tokens, largest difference {difference:.1e}",
        f"{found.kl_mean:.1e} / {found.kl_median:.1e}",
        f"{found.top1:.1%}",
        f"{found.perplexity:.2f}",
        f"{LONG_KL_NATS:.0e}",
    )
    assert found.kl_mean < LONG_KL_NATS


def last_logits(checkpoint: Path, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Of transformers in float32, [LAST, vocabulary]; in passes, for the scores of all rows at once
    would take gigabytes."""
    import torch
    from transformers import DynamicCache, Gemma3ForConditionalGeneration

    model = Gemma3ForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    cache = DynamicCache(config=model.config.get_text_config())
    with torch.inference_mode():
        for first in range(0, len(ids), PASS_TOKENS):
            part = torch.from_numpy(ids[None, first : first + PASS_TOKENS])
            out = model(part, past_key_values=cache, use_cache=True, logits_to_keep=LAST)
    found: NDArray[np.float32] = out.logits[0].numpy()
    return found
