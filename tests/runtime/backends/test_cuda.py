"""The CUDA backend with the host in the device's place: addresses, strides and growth are real."""

from pathlib import Path

import numpy as np
import pytest
from host_device import HostDevice

from edge_medgemma.runtime.backends.cuda import CudaDecoder, CudaVision, cuda_session
from edge_medgemma.runtime.backends.ort import open_session
from edge_medgemma.runtime.errors import DeviceMemoryError, ProviderError
from edge_medgemma.runtime.generation.embedding import Embedding
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.sampling import Sampling

TOLERANCE = 2e-4
"""Of logits around 10: float32 sums taken in another order."""


def open_decoder(engine: Engine, device: HostDevice) -> CudaDecoder:
    session = open_session(engine.directory / "decoder.onnx", 1)
    return CudaDecoder(session, device, engine.manifest, "cpu")


def test_a_prefix_in_device_memory_is_one_in_the_hosts(tiny_engine: Engine) -> None:
    device = HostDevice()
    decoder = open_decoder(tiny_engine, device)
    chunks = tiny_engine.prompt.prefix("Please review the slices.", 5)
    manifest = tiny_engine.manifest
    shape = (5, manifest.vision.tokens_per_image, manifest.text.hidden_size)
    features = np.random.default_rng(3).standard_normal(shape, np.float32)
    ours = Prefix(decoder, Embedding(tiny_engine.directory, manifest), manifest)
    reference = tiny_engine.new_prefix()
    first = 0
    for chunk in chunks:
        for prefix in (ours, reference):
            prefix.extend(chunk, features[first : first + chunk.images])
        first += chunk.images
    question = tiny_engine.prompt.question("Why?")
    for _ in range(2):  # the second time after a rewind
        difference = np.abs(ours.score([question]) - reference.score([question]))
        message = f"max {difference.max():.2e} mean {difference.mean():.2e}"
        assert difference.max() < TOLERANCE, message
        steps = [
            [step.token_id for step in prefix.generate(question, Sampling(), 40)]
            for prefix in (ours, reference)
        ]
        assert steps[0] == steps[1]
    del ours
    assert not device.blocks


def test_growing_keeps_what_was_written(tiny_engine: Engine) -> None:
    caches = open_decoder(tiny_engine, HostDevice()).new_caches()
    text = tiny_engine.manifest.text
    caches.reserve("global", 20, 0)
    rng = np.random.default_rng(0)
    shape = (1, text.kv_heads, 20, text.head_dim)
    rows = [rng.standard_normal(shape, np.float32) for _ in caches.view("global", 0)]
    assert rows
    caches.restore("global", rows)
    caches.reserve("global", 50, 20)
    for saved, row in zip(caches.view("global", 20), rows, strict=True):
        np.testing.assert_array_equal(saved, row)


@pytest.mark.parametrize("change", ["dtype", "heads", "rows", "number"])
def test_rows_of_other_caches_are_refused(tiny_engine: Engine, change: str) -> None:
    """Bytes of another shape or type would be read as keys and values."""
    caches = open_decoder(tiny_engine, HostDevice()).new_caches()
    caches.reserve("global", 20, 0)
    rows = [np.zeros_like(row) for row in caches.view("global", 10)]
    caches.restore("global", rows)
    wrong = {
        "dtype": lambda: [row.astype(np.float16) for row in rows],
        "heads": lambda: [np.repeat(row, 2, axis=1) for row in rows],
        "rows": lambda: [np.repeat(row, 3, axis=2) for row in rows],
        "number": lambda: rows[1:],
    }
    with pytest.raises(ValueError, match=r"caches take|argument"):
        caches.restore("global", wrong[change]())


def test_a_full_device_is_said_in_one_line(tiny_engine: Engine) -> None:
    decoder = open_decoder(tiny_engine, HostDevice(limit_bytes=10_000))
    with pytest.raises(DeviceMemoryError, match="memory is full"):
        decoder.new_caches().reserve("local", 4096, 0)


class _Failing:
    def run(self, *_: object) -> None:
        raise RuntimeError("bfc_arena.cc:376 Failed to allocate memory for requested buffer")


def test_onnxruntimes_words_for_a_full_device_are_understood() -> None:
    with pytest.raises(DeviceMemoryError, match="--provider cpu"):
        CudaVision(_Failing()).run(np.zeros((1, 3, 4, 4), np.float32))


def test_an_onnxruntime_without_cuda_says_what_to_install(tiny_engine_directory: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(ProviderError, match=r"edge-medgemma\[gpu\]"):
        cuda_session(tiny_engine_directory / "decoder.onnx")
