"""Parity with transformers, and proof that the check can fail."""

from pathlib import Path

import numpy as np
import pytest

from edge_medgemma.export.verify import common_greedy, verify_engine
from edge_medgemma.runtime.generation import masks, prefix
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.images import to_pixel_values

RELATIVE_LOGIT_LIMIT = 2e-3
"""max |Δlogit| as a share of the logit range, for a float32 engine"""


def test_engine_is_transformers(tiny_engine: Engine, tiny_checkpoint: Path) -> None:
    comparisons = verify_engine(tiny_engine, tiny_checkpoint)
    assert [c.prompt for c in comparisons] == [
        "text",
        "1 image",
        "3 images",
        "longer than the window",
    ]
    assert comparisons[-1].tokens > 2 * tiny_engine.manifest.text.sliding_window
    for c in comparisons:
        assert c.max_logit_difference < RELATIVE_LOGIT_LIMIT * c.logit_range, c
        assert c.greedy_equal == c.greedy_tokens == 64, c
        assert c.top1_agreement == 1, c
        assert c.image_cosine is None or c.image_cosine > 1 - 1e-5, c


def test_a_causal_image_mask_fails_the_check(
    tiny_engine: Engine, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def causal(queries, keys, window, hidden_chunks=None):
        text = masks.TokenMeta(
            keys.positions, np.full(len(keys), masks.NO_IMAGE), keys.chunks, keys.branches
        )
        return masks.additive_mask(queries, text, window, hidden_chunks)

    monkeypatch.setattr(prefix, "additive_mask", causal)
    text, *with_images = verify_engine(tiny_engine, tiny_checkpoint, greedy_tokens=4)
    assert text.max_logit_difference < RELATIVE_LOGIT_LIMIT * text.logit_range
    for c in with_images:
        assert c.max_logit_difference > RELATIVE_LOGIT_LIMIT * c.logit_range, c


def test_pixels_are_prepared_as_the_processor_does(
    tiny_engine: Engine, tiny_checkpoint: Path
) -> None:
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    processor = Gemma3ImageProcessorPil.from_pretrained(tiny_checkpoint)
    pixels = np.random.default_rng(3).integers(0, 256, (2, 150, 130, 3), dtype=np.uint8)
    expected = processor(list(pixels), return_tensors="np")["pixel_values"]
    actual = to_pixel_values(pixels, tiny_engine.manifest.vision)
    difference = np.abs(actual - expected)
    assert difference.max() < 1e-6, f"max {difference.max():.2e} mean {difference.mean():.2e}"


@pytest.mark.parametrize(
    ("own", "reference", "expected"),
    [
        ([5, 6, 7], [5, 6, 7], (3, 3)),
        ([5, 6, 8], [5, 6, 7], (2, 3)),
        ([5], [5, 1, 9], (2, 2)),
        ([5], [5, 106, 9], (2, 2)),
        ([5, 6, 7], [5, 1, 9], (1, 2)),
        ([5], [5, 6, 7], (1, 3)),
        ([], [1, 5], (1, 1)),
    ],
)
def test_greedy_continuations_are_compared_up_to_their_end(own, reference, expected) -> None:
    assert common_greedy(own, reference, (1, 106)) == expected
