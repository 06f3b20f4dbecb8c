import math
from pathlib import Path

import pytest
from comparisons.checkpoint import write_checkpoint
from comparisons.room import TextSize, available_bytes, require
from comparisons.worker import Cannot

from edge_medgemma.export.checkpoint.synthetic import synthetic_checkpoint


def test_sizes_are_those_of_the_matrices(tmp_path: Path):
    source = synthetic_checkpoint("tiny")
    size = TextSize.of(write_checkpoint(source, tmp_path / "checkpoint"))
    text = [t for name, t in source.tensors.items() if name.startswith("text.")]
    assert size.all == sum(math.prod(t.shape) for t in text if len(t.shape) == 2)
    assert size.embedding == source.text.vocabulary * source.text.hidden_size


def test_what_does_not_fit_is_a_reason():
    require(1, "a byte")
    with pytest.raises(Cannot, match=r"its builder takes \d+\.\d GB, \d+\.\d GB were available"):
        require(2 * available_bytes(), "its builder")
