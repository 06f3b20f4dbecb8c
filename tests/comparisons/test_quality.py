from collections import Counter
from pathlib import Path

import pytest
from comparisons.formats import HEAD, whole_kind
from comparisons.quality import Row, markdown
from comparisons.stored_bits import stored_bits
from real_weights.scores import Score

from edge_medgemma.export.checkpoint.synthetic import synthetic_checkpoint
from edge_medgemma.export.engine import export_engine


def test_a_line_of_the_table() -> None:
    found = Score(0.3412, 0.26, 0.724, 34.31)
    row = Row("shuffled", "llama.cpp q4_0", 241_000_000, 4.5, 8.5, found, "126 q4_0")
    assert markdown([row]).splitlines()[-1] == (
        "| shuffled | llama.cpp q4_0 | 241 | 4.50 / 8.50 (126 q4_0) | 0.34 / 0.26 | 72.4% | 34.31 |"
    )


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("int4", (29 / 6, 8.125)), ("int8", (8.5, 8.125)), ("fp32", (32.0, 32.0))],
)
def test_bits_of_a_weight_with_a_scale_for_32(
    precision: str, expected: tuple[float, float], tmp_path: Path
) -> None:
    """Values are a twelfth of this shape's weights and have 8 bits; the head has one for 128."""
    checkpoint = synthetic_checkpoint("tiny")
    export_engine(checkpoint, tmp_path / "engine", precision=precision, block_size=32)
    assert stored_bits(tmp_path / "engine") == expected


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("q4_k_m-whole", {"Q4_K": 204, "Q6_K": 35}),
        ("q4_k_s-whole", {"Q4_K": 230, "Q5_K": 8, "Q6_K": 1}),
    ],
)
def test_k_formats_of_the_4b_shape_are_those_that_llama_cpp_chose(
    variant: str, expected: dict[str, int]
) -> None:
    parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    names = [HEAD, *(f"blk.{layer}.{part}.weight" for layer in range(34) for part in parts)]
    assert Counter(whole_kind(name, variant, 34) for name in names) == expected
