"""Which device `auto` takes, and the self-test before it; the host computes in TensorRT's place."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.host_backend import HostBackend

from edge_medgemma.runtime.backends.gpu import (
    DEVICES,
    CudaBackend,
    TensorRtBackend,
    choose,
)
from edge_medgemma.runtime.backends.select import AUTOMATIC, Provider, Providers
from edge_medgemma.runtime.backends.self_test.reference_outputs import REFERENCE_OUTPUTS_NAME
from edge_medgemma.runtime.backends.tensorrt.shapes import DecoderShapes, may_have_decode_profile
from edge_medgemma.runtime.errors import DependencyError, EngineError, ProviderError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.manifest import (
    DECODE_GRAPH,
    MANIFEST_NAME,
    PREFILL_GRAPH,
    FileRecord,
    Manifest,
    dump_manifest,
    load_manifest,
)
from edge_medgemma.runtime.triage.chat_session import open_scan
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.triage_scan import triage_scan

TENSORRT = Providers(Provider.TENSORRT, Provider.TENSORRT)
CPU = Providers(Provider.CPU, Provider.CPU)


@pytest.fixture(autouse=True)
def own_stamps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def altered_weights(tiny_tensorrt_directory: Path) -> Path:
    """The same graphs, half of the decoder's weights zero."""
    directory = tiny_tensorrt_directory.with_name("altered")
    shutil.copytree(tiny_tensorrt_directory, directory)
    weights = np.fromfile(directory / "decoder.data", np.uint8)
    weights[: len(weights) // 2] = 0
    weights.tofile(directory / "decoder.data")
    return directory


def open_on(backend: HostBackend, directory: Path, providers: Providers = AUTOMATIC) -> Engine:
    devices = {Provider.TENSORRT: backend}
    return Engine.open(
        directory, threads=1, providers=providers, check_files=False, devices=devices
    )


def with_precision(manifest: Manifest, dialect: str, activations: str) -> Manifest:
    precision = replace(manifest.precision, activations=activations, cache=activations)
    files = {**manifest.files, **dict.fromkeys((PREFILL_GRAPH, DECODE_GRAPH), FileRecord(0, ""))}
    return replace(manifest, dialect=dialect, precision=precision, files=files)


def test_each_library_takes_the_engines_that_were_exported_for_it(tiny_engine: Engine) -> None:
    for dialect in ("ort", "trt"):
        for activations in ("fp32", "fp16", "bf16"):
            manifest = with_precision(tiny_engine.manifest, dialect, activations)
            for backend, target, own in (
                (CudaBackend(), "cuda", "ort"),
                (TensorRtBackend(), "tensorrt", "trt"),
            ):
                if dialect == own and activations != "fp32":
                    backend.check(manifest)
                    continue
                with pytest.raises(EngineError, match=f"--target {target}"):
                    backend.check(manifest)


def test_an_engine_of_an_earlier_version_has_no_graphs_for_cuda(tiny_engine: Engine) -> None:
    manifest = with_precision(tiny_engine.manifest, "ort", "fp16")
    with pytest.raises(EngineError, match="--target cuda"):
        CudaBackend().check(replace(manifest, files=tiny_engine.manifest.files))


def test_auto_says_why_it_takes_no_device(
    tiny_engine: Engine, tiny_tensorrt_directory: Path
) -> None:
    choice = choose(tiny_engine.directory, tiny_engine.manifest, AUTOMATIC, DEVICES)
    assert (choice.vision, choice.decoder, choice.identities) == ("auto", "auto", {})
    reasons = {one.provider: one.reason for one in choice.fallbacks}
    assert "--target tensorrt" in reasons[Provider.TENSORRT]
    assert "--target cuda" in reasons[Provider.CUDA]


def test_without_a_gpu_half_precision_runs_on_the_cpu_and_bfloat16_nowhere(
    tiny_tensorrt_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = load_manifest(tiny_tensorrt_directory)
    try:
        TensorRtBackend().identity(tiny_tensorrt_directory, manifest)
    except (DependencyError, ProviderError) as error:
        reason = str(error)
    else:
        pytest.skip("there are plans of this engine")
    choice = choose(tiny_tensorrt_directory, manifest, AUTOMATIC, DEVICES)
    assert (choice.vision, choice.decoder) == ("cpu", "cpu")
    assert choice.fallbacks[0].reason == reason
    assert f"not on tensorrt: {reason}" in caplog.text
    with pytest.raises((DependencyError, ProviderError)):
        choose(tiny_tensorrt_directory, manifest, TENSORRT, DEVICES)
    wide = with_precision(manifest, "trt", "bf16")
    with pytest.raises(ProviderError, match=r"needs a GPU.*--activations fp16"):
        choose(tiny_tensorrt_directory, wide, AUTOMATIC, DEVICES)


def test_a_device_with_the_cpus_answers_is_taken_and_asked_once(
    tiny_tensorrt_directory: Path,
) -> None:
    backend = HostBackend()
    with open_on(backend, tiny_tensorrt_directory) as engine:
        assert (engine.choice.vision, engine.choice.decoder) == ("tensorrt", "tensorrt")
        assert "tensorrt host driver 13020" in engine.vision_identity
        assert "tensorrt host driver 13020" in engine.decoder_identity
    assert sorted(backend.opened) == ["decoder", "vision"]
    again = HostBackend()
    with open_on(again, tiny_tensorrt_directory) as engine:
        assert engine.choice.vision == "tensorrt"
    assert again.opened == []
    later = HostBackend(driver=13030)
    with open_on(later, tiny_tensorrt_directory) as engine:
        assert engine.choice.vision == "tensorrt"
    assert sorted(later.opened) == ["decoder", "vision"]


def test_a_device_with_other_answers_is_refused_with_the_numbers(
    tiny_tensorrt_directory: Path, altered_weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = HostBackend(altered_weights)
    with open_on(backend, tiny_tensorrt_directory, TENSORRT) as engine:
        for _ in range(2):  # the second time by its stamp
            with pytest.raises(ProviderError, match=r"tensorrt fails its self-test.*KL"):
                _ = engine.choice
    assert sorted(backend.opened) == ["decoder", "vision"]
    with open_on(backend, tiny_tensorrt_directory) as engine:
        assert (engine.choice.vision, engine.choice.decoder) == ("cpu", "cpu")
        assert "self-test" in engine.choice.fallbacks[0].reason
        assert " cpu onnxruntime" in engine.decoder_identity
    assert caplog.text.count("runs on the CPU, not on tensorrt: tensorrt fails its self-test") == 1


def test_an_engine_without_reference_outputs_is_not_trusted_to_a_device(
    tiny_tensorrt_directory: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "engine"
    shutil.copytree(tiny_tensorrt_directory, directory)
    manifest = load_manifest(directory)
    files = {name: one for name, one in manifest.files.items() if name != REFERENCE_OUTPUTS_NAME}
    (directory / MANIFEST_NAME).write_text(dump_manifest(replace(manifest, files=files)))
    engine = open_on(HostBackend(), directory, TENSORRT)
    with pytest.raises(ProviderError, match="without --no-reference-outputs"):
        _ = engine.choice
    with open_on(HostBackend(), directory) as engine:
        assert engine.choice.decoder == "cpu"


def test_a_study_whose_device_fails_is_finished_on_the_cpu(
    tiny_tensorrt_directory: Path, tmp_path: Path
) -> None:
    from support.synthetic_series import write_head_ct

    scan = write_head_ct(tmp_path / "scan", lesion=range(4, 8))
    backend = HostBackend()
    with open_on(backend, tiny_tensorrt_directory, TENSORRT) as engine:
        assert engine.choice.vision == "tensorrt"
        backend.slices_left = 2
        options = TriageOptions(slices=4, baseline_folder=tmp_path / "device")
        (study,) = triage_scan(engine, scan, options).studies
        assert engine.choice.vision == "cpu"
        assert not engine.fall_back("once more")
    assert "device_failed" in {one.name for one in study.problems}
    with open_on(HostBackend(), tiny_tensorrt_directory, CPU) as engine:
        options = TriageOptions(slices=4, baseline_folder=tmp_path / "cpu")
        (reference,) = triage_scan(engine, scan, options).studies
    assert "device_failed" not in {one.name for one in reference.problems}
    assert study.findings == reference.findings
    assert study.urgency == reference.urgency


def test_a_question_whose_device_fails_is_answered_by_the_cpu(
    tiny_tensorrt_directory: Path, tmp_path: Path
) -> None:
    from support.synthetic_series import write_head_ct

    scan = write_head_ct(tmp_path / "scan", lesion=range(4, 8))
    options = TriageOptions(slices=4)
    backend = HostBackend()
    with open_on(backend, tiny_tensorrt_directory, TENSORRT) as engine:
        assert engine.choice.vision == "tensorrt"
        backend.slices_left = 2
        session = open_scan(engine, scan, options)
        assert engine.choice.vision == "cpu"
        answer = [piece.text for piece in session.ask("What is there?", max_tokens=8)]
    with open_on(HostBackend(), tiny_tensorrt_directory, CPU) as engine:
        reference = open_scan(engine, scan, options)
        expected = [piece.text for piece in reference.ask("What is there?", max_tokens=8)]
    assert answer == expected
    new = [one.name for one in session.problems if one not in reference.problems]
    assert new == ["device_failed"]


def test_sixteen_bit_weights_stand_in_a_plan_once(tiny_tensorrt_directory: Path) -> None:
    manifest = load_manifest(tiny_tensorrt_directory)
    assert not may_have_decode_profile(manifest)
    quarter = replace(
        manifest, precision=replace(manifest.precision, decoder="int4", block_size=32)
    )
    assert may_have_decode_profile(quarter)
    shapes = DecoderShapes(64, 64, 32, 4, has_decode_profile=False)
    (profile,) = shapes.profiles(manifest)
    least, _, greatest = profile.shapes["position_ids"]
    assert (least, greatest) == ((1, 1), (1, 32))
    assert {shapes.profile_for(tokens) for tokens in (1, 2, 32)} == {0}
