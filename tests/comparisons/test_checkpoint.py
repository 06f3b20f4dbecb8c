from pathlib import Path

import ml_dtypes
import numpy as np
from comparisons.checkpoint import write_checkpoint

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.checkpoint.synthetic import synthetic_checkpoint


def test_a_written_checkpoint_opens_as_what_it_was(tmp_path: Path):
    source = synthetic_checkpoint("tiny")
    written = open_checkpoint(str(write_checkpoint(source, tmp_path / "checkpoint")))
    assert (written.text, written.vision, written.tokens) == (
        source.text,
        source.vision,
        source.tokens,
    )
    assert written.tensors.keys() == source.tensors.keys()
    for name, tensor in source.tensors.items():
        expected = tensor.read(slice(None)).astype(ml_dtypes.bfloat16).astype(np.float32)
        np.testing.assert_array_equal(written.tensors[name].read(slice(None)), expected, name)
