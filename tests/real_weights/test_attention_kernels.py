"""The attention kernels on queries, keys and values of the real model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from real_weights.bounds import KERNEL_DIFFERENCE, PREFILL_ATTENTION_DIFFERENCE
from real_weights.table import add_row
from support.grouped_attention import KINDS, SPARE_ROWS, Case, attended, reference

from edge_medgemma.runtime.backends.onnxruntime.custom_ops import cpu_kernels
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.masks import HIDDEN
from edge_medgemma.runtime.kernels.level import level_absence

LIBRARY = cpu_kernels and cpu_kernels.__file__
LAYERS = (0, 5, 17)
PROMPT_ROWS = 300
LEVELS = 127

Recorded = dict[int, dict[str, NDArray[np.float32]]]
"""By layer: `query`, `key` and `value` [heads, tokens, size], turned to their positions."""


@pytest.fixture(scope="module")
def recorded(checkpoint: Path, ids: NDArray[np.int64]) -> Recorded:
    """What attention is given over the text."""
    import torch
    from transformers import AttentionInterface, Gemma3ForConditionalGeneration
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    found: Recorded = {}

    def keep(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        if module.layer_idx in LAYERS:
            parts = zip(("query", *KINDS), (query, key, value), strict=True)
            found[module.layer_idx] = {name: part[0].numpy().copy() for name, part in parts}
        return sdpa_attention_forward(module, query, key, value, mask, **options)

    model = Gemma3ForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    AttentionInterface.register("recorded", keep)
    model.model.language_model.config._attn_implementation = "recorded"
    with torch.inference_mode():
        model(torch.from_numpy(ids[None]), logits_to_keep=1)
    return found


def node_inputs(case: Case, layer: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
    """Inputs of the node for the last `case.rows` tokens; the caches hold those before."""
    first = case.total - case.rows
    arrays: dict[str, NDArray[Any]] = {}
    for name, part in layer.items():
        arrays[name] = part[:, first:].transpose(1, 0, 2).reshape(1, case.rows, -1).copy()
    for kind in KINDS:
        cache = np.zeros((1, case.kv_heads, case.total + SPARE_ROWS, case.size), np.float32)
        cache[0, :, :first] = layer[kind][:, :first]
        arrays[f"past_{kind}"] = cache
    seen = np.tri(case.rows, case.total, first, dtype=np.bool_)
    arrays["last"] = np.array([case.total - 1], np.int32)
    arrays["total"] = np.array(case.total, np.int32)
    arrays["mask"] = np.where(seen, np.float32(0), HIDDEN)[None, None]
    return arrays


def with_int8_caches(case: Case, arrays: dict[str, NDArray[Any]]) -> None:
    """Replace the caches by integers, a step for each channel."""
    for kind in KINDS:
        past = arrays[f"past_{kind}"]
        largest = np.abs(past[0]).max(axis=1, keepdims=True)
        steps = np.where(largest > 0, largest, 1) / np.float32(LEVELS)  # some channels are dead
        arrays[f"past_{kind}"] = np.rint(past / steps).astype(np.int8)
        arrays[f"{kind}_step"] = steps.reshape(-1)


@pytest.fixture
def whole(fp32: Engine, ids: NDArray[np.int64]) -> Case:
    """The text with the heads of the model."""
    text = fp32.manifest.text
    return Case(1, len(ids), text.heads, text.kv_heads, text.head_dim)


@pytest.mark.skipif(
    level_absence() is not None, reason="this processor, or installation, computes no attention"
)
def test_of_a_prompt(whole: Case, recorded: Recorded) -> None:
    case = replace(whole, rows=PROMPT_ROWS)
    worst = 0.0
    for layer in recorded.values():
        arrays = node_inputs(case, layer)
        given = attended(case, arrays, LIBRARY)
        expected = reference(case, arrays)
        worst = max(worst, np.linalg.norm(given - expected) / np.linalg.norm(expected))
    add_row("attention of a prompt against the formula", f"{worst:.1e} of the norm")
    assert 0 < worst < PREFILL_ATTENTION_DIFFERENCE


@pytest.mark.skipif(
    cpu_kernels is None or not cpu_kernels.claimed_levels(),
    reason="this processor, or installation, has no kernels for the decoder",
)
def test_of_an_answer_over_int8_caches(whole: Case, recorded: Recorded) -> None:
    case = replace(whole, is_int8=True)
    worst = 0.0
    for layer in recorded.values():
        ours, own = node_inputs(case, layer), node_inputs(case, layer)
        for arrays in (ours, own):
            with_int8_caches(case, arrays)
        given, expected = attended(case, ours, LIBRARY), attended(case, own, None)
        worst = max(worst, float(np.abs(given - expected).max() / np.abs(expected).max()))
    add_row("attention of an answer against onnxruntime", f"{worst:.1e} of the largest")
    assert 0 < worst < KERNEL_DIFFERENCE
