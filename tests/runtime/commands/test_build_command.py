"""What `build` refuses before it spends an hour."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from host_device import HostDevice

from edge_medgemma.export.checkpoint import open_checkpoint
from edge_medgemma.export.golden import export_with_golden
from edge_medgemma.export.target import Target
from edge_medgemma.runtime.backends.golden import GOLDEN_NAME
from edge_medgemma.runtime.commands import build
from edge_medgemma.runtime.errors import (
    DependencyError,
    EdgeMedgemmaError,
    EngineError,
    ProviderError,
    ResourceError,
)
from edge_medgemma.runtime.generation.engine import Engine


@pytest.fixture(scope="module")
def engine(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("build") / "engine"
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    target = Target("trt", "fp16")
    export_with_golden(checkpoint, directory, precision="fp16", block_size=32, target=target)
    return directory


def refusal(*arguments: object) -> EdgeMedgemmaError:
    result = CliRunner().invoke(build.command, [str(one) for one in arguments])
    assert isinstance(result.exception, EdgeMedgemmaError), result.output
    assert "\n" not in str(result.exception)
    return result.exception


def test_an_engine_for_the_cpu_is_refused(tiny_engine_directory: Path) -> None:
    error = refusal(tiny_engine_directory)
    assert isinstance(error, EngineError)
    assert "--target tensorrt" in str(error)


def test_too_little_memory_is_refused(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "available_bytes", lambda: 1000)
    error = refusal(engine)
    assert isinstance(error, ResourceError)
    assert "--swap 8" in str(error)


def test_a_gpu_that_cannot_hold_the_slices_is_refused(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "find_tensorrt", object)
    monkeypatch.setattr(build, "CudaDevice", lambda: HostDevice(limit_bytes=10**6))
    error = refusal(engine, "--slices", "8")
    assert isinstance(error, ResourceError)
    assert "8 slices need 0.5 GB of the GPU's memory" in str(error)
    assert not (engine / "devices").exists()


def test_an_engine_without_golden_outputs_is_refused(engine: Path, tmp_path: Path) -> None:
    copy = tmp_path / "engine"
    shutil.copytree(engine, copy)
    (copy / GOLDEN_NAME).unlink()
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["files"][GOLDEN_NAME]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert "without --no-golden" in str(refusal(copy))


def test_no_device_is_refused(engine: Path) -> None:
    try:
        build.CudaDevice()
    except (DependencyError, ProviderError):
        error = refusal(engine)
    else:
        pytest.skip("there is a device")
    assert isinstance(error, DependencyError | ProviderError)
    assert not (engine / "devices").exists()


def test_the_plans_hold_the_slices_asked_for_and_sixteen_bit_weights_once(engine: Path) -> None:
    with Engine.open(engine, check_files=False) as opened:
        few, many = build.decoder_shapes(opened, 8), build.decoder_shapes(opened, 24)
        read = sum(len(chunk.ids) for chunk in opened.prompt.prefix("", 24))
        assert many.global_rows > read
        assert many.global_rows - few.global_rows >= 16 * (opened.manifest.vision.tokens_per_image)
        assert many.local_rows == few.local_rows > opened.manifest.text.sliding_window
    assert not many.has_decode_profile
