"""The committed engine that tests of the runtime use is the one the exporter writes."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx

from edge_medgemma.runtime.manifest import load_manifest


def test_the_committed_engine_is_current(engine: Path, tiny_engine_directory: Path) -> None:
    """But for the last bit of constants such as cosines, which numpy rounds by the processor."""
    written, committed = load_manifest(engine), load_manifest(tiny_engine_directory)
    same = dataclasses.replace(written, tools=committed.tools, files=committed.files)
    assert committed == same, "run make tiny-engine"
    assert set(committed.files) == set(written.files)
    for name in committed.files:
        found, expected = (folder / name for folder in (tiny_engine_directory, engine))
        if name.endswith(".onnx"):
            nodes = [
                onnx.load(path, load_external_data=False).graph.node for path in (found, expected)
            ]
            assert list(nodes[0]) == list(nodes[1]), f"run make tiny-engine: {name}"
        elif name.endswith(".data"):
            values = [np.fromfile(path, np.float32) for path in (found, expected)]
            np.testing.assert_allclose(values[0], values[1], rtol=1e-6, atol=1e-7, err_msg=name)
        else:
            assert found.read_bytes() == expected.read_bytes(), f"run make tiny-engine: {name}"
