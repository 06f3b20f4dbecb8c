"""The CUDA backend with the host in the device's place: addresses, strides and growth are real."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.host_device import HostDevice
from support.host_sessions import HostSessions

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.engine import export_engine
from edge_medgemma.export.graphs.decoder import DecoderWriter
from edge_medgemma.export.graphs.ort_dialect import OrtDialect, OrtTokenDialect
from edge_medgemma.export.quantisation.quant_scheme import plan_export
from edge_medgemma.export.target import Target, choose_target
from edge_medgemma.runtime.backends.cuda import decoder as cuda_decoder
from edge_medgemma.runtime.backends.cuda import session as cuda_session_module
from edge_medgemma.runtime.backends.cuda.decoder import CudaDecoder, sees_all
from edge_medgemma.runtime.backends.cuda.session import CudaVision, cuda_session
from edge_medgemma.runtime.backends.gpu import CudaBackend
from edge_medgemma.runtime.backends.onnxruntime.decoder import OrtDecoder
from edge_medgemma.runtime.errors import (
    DependencyError,
    DeviceMemoryError,
    EngineError,
    ProviderError,
)
from edge_medgemma.runtime.generation.embedding import Embedding
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.masks import HIDDEN
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.prompt import Chunk
from edge_medgemma.runtime.generation.sampling import Sampling, log_softmax
from edge_medgemma.runtime.manifest import DECODE_GRAPH, PREFILL_GRAPH, Manifest, load_manifest

TOLERANCE = 2e-4
"""Of logits around 10: float32 sums taken in another order."""


@pytest.fixture(scope="module")
def directory(
    tiny_checkpoint: Path, tiny_engine_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny engine with the graphs for CUDA, which an export writes in 16 bits, in float32."""
    copy = tmp_path_factory.mktemp("cuda") / "engine"
    shutil.copytree(tiny_engine_directory, copy)
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    plan = plan_export(checkpoint, "fp32", 32)
    window = checkpoint.text.sliding_window
    for name, ops in (
        (PREFILL_GRAPH, OrtDialect()),
        (DECODE_GRAPH, OrtTokenDialect(window=window)),
    ):
        graph = DecoderWriter(plan.checkpoint, ops, plan.decoder).write()
        (copy / name).write_bytes(graph.serialize_fed("decoder.data"))
    return copy


def open_decoder(
    directory: Path, device: HostDevice, sessions: HostSessions | None = None
) -> CudaDecoder:
    sessions = sessions or HostSessions()
    return CudaDecoder(directory, load_manifest(directory), device, sessions)


def new_prefix(decoder: Any, directory: Path, manifest: Manifest) -> Prefix:
    return Prefix(decoder, Embedding(directory, manifest), manifest)


def tokens(prefix: Prefix, question: list[int], count: int) -> list[int]:
    return [step.token_id for step in prefix.generate(question, Sampling(ignore_stop=True), count)]


def test_a_prefix_in_device_memory_is_one_in_the_hosts(
    tiny_engine: Engine, directory: Path
) -> None:
    device, sessions = HostDevice(), HostSessions()
    decoder = open_decoder(directory, device, sessions)
    weights = set(device.blocks)
    chunks = tiny_engine.prompt.prefix("Please review the slices.", 5)
    manifest = tiny_engine.manifest
    shape = (5, manifest.vision.tokens_per_image, manifest.text.hidden_size)
    features = np.random.default_rng(3).standard_normal(shape, np.float32)
    ours = new_prefix(decoder, directory, manifest)
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
        assert tokens(ours, question, 40) == tokens(reference, question, 40)
    assert set(sessions.runs[-39:]) == {"1"}, "single tokens have a graph of their own"
    del ours
    assert set(device.blocks) == weights


def test_a_single_token_sees_its_window_and_no_more(tiny_engine: Engine, directory: Path) -> None:
    """Logits behind more rows than a window, some of them older than it, by both graphs."""
    manifest = tiny_engine.manifest
    window = manifest.text.sliding_window
    decoder = open_decoder(directory, HostDevice())
    ours, reference = new_prefix(decoder, directory, manifest), tiny_engine.new_prefix()
    ids = np.random.default_rng(5).integers(10, 200, 3 * window).tolist()
    for prefix in (ours, reference):
        prefix.extend(Chunk(tuple(ids), 0))
    for token in ids[:5]:
        actual, expected = (p.extend(Chunk((token,), 0)) for p in (ours, reference))
        difference = np.abs(actual - expected)
        message = f"max {difference.max():.2e} mean {difference.mean():.2e}"
        assert difference.max() < TOLERANCE, message


def test_masks_that_hide_anything_else_need_the_graph_for_chunks() -> None:
    shown, hidden = np.zeros((1, 1, 1, 30), np.float32), np.zeros((1, 1, 1, 30), np.float32)
    hidden[..., :6] = HIDDEN
    assert sees_all(shown, hidden, 24)
    assert sees_all(shown, shown, 30)
    assert not sees_all(shown, shown, 24)
    assert not sees_all(shown, hidden, 25)
    assert not sees_all(shown, hidden, 20)
    assert not sees_all(hidden, shown, 30)


@pytest.mark.parametrize("fails_at", [1, 2])
def test_what_cannot_be_recorded_runs_all_the_same(
    tiny_engine: Engine, directory: Path, fails_at: int
) -> None:
    manifest, sessions = tiny_engine.manifest, HostSessions(fails_at)
    decoder = open_decoder(directory, HostDevice(), sessions)
    prefix = new_prefix(decoder, directory, manifest)
    expected = tokens(tiny_engine.new_prefix(), [5, 6, 7], 10)
    assert tokens(prefix, [5, 6, 7], 10) == expected
    assert tokens(prefix, [5, 6, 7], 10) == expected
    names = [(PREFILL_GRAPH, False), (DECODE_GRAPH, True), (DECODE_GRAPH, False)]
    assert sessions.opened == names


def test_caches_that_moved_are_recorded_anew_and_recordings_are_bounded(
    tiny_engine: Engine, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_decoder, "MOST_RECORDINGS", 2)
    manifest, sessions = tiny_engine.manifest, HostSessions()
    decoder = open_decoder(directory, HostDevice(), sessions)
    expected = tokens(tiny_engine.new_prefix(), [5, 6, 7], 4)
    prefixes = [new_prefix(decoder, directory, manifest) for _ in range(3)]
    for prefix in prefixes:
        assert tokens(prefix, [5, 6, 7], 4) == expected
    assert [run for run in sessions.runs if run] == ["1"] * 3 + ["2"] * 3 + ["1"] * 3
    assert sessions.opened.count((DECODE_GRAPH, True)) == 2


def test_an_export_for_cuda_has_both_graphs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """In 16 bits, on the CPU's kernels, they choose the tokens of decoder.onnx."""
    directory = tmp_path / "engine"
    manifest = export_engine(
        open_checkpoint(str(tiny_checkpoint)),
        directory,
        precision="int4",
        block_size=32,
        target=Target("ort", "fp16"),
    )
    assert {PREFILL_GRAPH, DECODE_GRAPH} <= set(manifest.files)
    reference = OrtDecoder(directory, manifest, 1)
    device = HostDevice()
    decoder = open_decoder(directory, device)
    logprobs = []
    for model in (decoder, reference):
        prefix = new_prefix(model, directory, manifest)
        logits = [prefix.extend(Chunk(part, 0)) for part in ((5, 6, 7, 8), (9,), (10,))]
        logprobs.append(log_softmax(np.stack(logits)))
    kl_nats = (np.exp(logprobs[1]) * (logprobs[1] - logprobs[0])).sum(axis=-1)
    assert kl_nats.max() < 5e-4, f"KL {kl_nats}"
    stored = sum(manifest.files[name].bytes for name in ("decoder.data", "embedding.data"))
    held = sum(len(device.blocks[one]) for one in decoder._weights.addresses.values())
    assert 0.4 * stored < held <= stored, "weights are held once"


def test_an_export_for_the_cpu_in_16_bits_is_not_one_for_cuda(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Its tower keeps the operators that are fast there, and that OpenVINO reads."""
    manifest = export_engine(
        open_checkpoint(str(tiny_checkpoint)),
        tmp_path / "engine",
        precision="fp16",
        block_size=32,
        target=choose_target("cpu", "fp16", None),
    )
    assert not {PREFILL_GRAPH, DECODE_GRAPH} & set(manifest.files)
    assert b"MultiHeadAttention" in (tmp_path / "engine" / "vision.onnx").read_bytes()
    with pytest.raises(EngineError, match="--target cuda"):
        CudaBackend().check(manifest)


def test_weights_that_are_cut_short_are_refused(directory: Path, tmp_path: Path) -> None:
    copy = tmp_path / "engine"
    shutil.copytree(directory, copy)
    with (copy / "decoder.data").open("r+b") as file:
        file.truncate((copy / "decoder.data").stat().st_size - 1000)
    device = HostDevice()
    with pytest.raises(EngineError, match=r"decoder\.data.*export it again"):
        open_decoder(copy, device)
    assert not device.blocks


def test_growing_keeps_what_was_written(tiny_engine: Engine, directory: Path) -> None:
    caches = open_decoder(directory, HostDevice()).new_caches()
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
def test_rows_of_other_caches_are_refused(directory: Path, change: str) -> None:
    """Bytes of another shape or type would be read as keys and values."""
    caches = open_decoder(directory, HostDevice()).new_caches()
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


def test_a_full_device_is_said_in_one_line(directory: Path) -> None:
    device = HostDevice()
    decoder = open_decoder(directory, device)
    device.limit(sum(map(len, device.blocks.values())) + 10_000)
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
    with pytest.raises(DependencyError, match=r"\.\[gpu\]"):
        cuda_session(tiny_engine_directory / "decoder.onnx")


def test_what_onnxruntime_prints_of_missing_libraries_does_not_reach_our_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library = SimpleNamespace(
        get_available_providers=lambda: ["CUDAExecutionProvider"],
        preload_dlls=lambda cudnn: print("Failed to load libcublas.so.13"),
        SessionOptions=SimpleNamespace,
        InferenceSession=lambda *_, **__: SimpleNamespace(get_providers=lambda: ["CPU"]),
    )
    monkeypatch.setattr(cuda_session_module, "import_onnxruntime", lambda: library)
    with pytest.raises(ProviderError, match="CUDA does not start"):
        cuda_session(Path("probe.onnx"))
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "Failed to load libcublas.so.13\n")
