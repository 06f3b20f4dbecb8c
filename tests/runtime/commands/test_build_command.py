"""`build` from the command line to a triage on its plans, and what it refuses before it spends an hour."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.fake_tensorrt import FakeTensorRt
from support.host_device import HostDevice

from edge_medgemma.runtime.backends.cuda import device as cuda_device
from edge_medgemma.runtime.backends.gpu import DeviceBudget
from edge_medgemma.runtime.backends.self_test.reference_outputs import REFERENCE_OUTPUTS_NAME
from edge_medgemma.runtime.backends.tensorrt import plan_runner
from edge_medgemma.runtime.backends.tensorrt.plan_files import (
    DECODER_PLAN,
    TIMING_CACHE,
    VISION_PLAN,
    current_place,
    read_record,
)
from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.commands import build
from edge_medgemma.runtime.errors import (
    DependencyError,
    EdgeMedgemmaError,
    EngineError,
    ProviderError,
    ResourceError,
)
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.manifest import MANIFEST_NAME, dump_manifest, load_manifest
from edge_medgemma.runtime.memory.device_memory import largest_device_slices
from edge_medgemma.runtime.triage.scoring.questions import REASONING_TOKENS

SCAN = Path(__file__).resolve().parents[2] / "data" / "ct_head"


@pytest.fixture
def host_device(monkeypatch: pytest.MonkeyPatch) -> HostDevice:
    """TensorRT and its GPU are replaced by the stand-ins that compute, wherever they are looked for."""
    device = HostDevice()
    for module in (build, plan_runner):
        monkeypatch.setattr(module, "find_tensorrt", lambda: FakeTensorRt(device))
        monkeypatch.setattr(module, "CudaDevice", lambda: device)
    monkeypatch.setattr(cuda_device, "CudaDevice", lambda: device)
    return device


@pytest.mark.command("build")
def test_plans_are_built_tested_and_triaged_with(
    tiny_tensorrt_directory: Path, tmp_path: Path, host_device: HostDevice
) -> None:
    engine, out = tmp_path / "engine", tmp_path / "out"
    shutil.copytree(tiny_tensorrt_directory, engine)
    result = CliRunner().invoke(cli, ["build", str(engine), "--slices", "4"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert f"{engine / 'devices' / 'tensorrt'}: " in result.output
    assert "GB for Host" in result.output
    manifest = load_manifest(engine)
    record = read_record(engine, current_place(FakeTensorRt(host_device), host_device, manifest))
    assert {*record.files} == {DECODER_PLAN, VISION_PLAN, TIMING_CACHE}
    recorded = len(host_device.calls)
    arguments = ["triage", str(SCAN), "--engine", str(engine), "--provider", "tensorrt"]
    result = CliRunner().invoke(cli, [*arguments, "--slices", "2", "--out", str(out)])
    assert result.exit_code == 0, (result.output, result.exception)
    assert len(host_device.calls) > recorded, "the device was not used"
    assert json.loads((out / "triage.json").read_text())["studies"][0]["slices"]


def refusal(*arguments: object) -> EdgeMedgemmaError:
    result = CliRunner().invoke(build.command, [str(one) for one in arguments])
    assert isinstance(result.exception, EdgeMedgemmaError), result.output
    assert "\n" not in str(result.exception)
    return result.exception


def test_an_engine_for_the_cpu_is_refused(tiny_engine_directory: Path) -> None:
    error = refusal(tiny_engine_directory)
    assert isinstance(error, EngineError)
    assert "--target tensorrt" in str(error)


def test_too_little_memory_is_refused(
    tiny_tensorrt_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "available_bytes", lambda: 1000)
    error = refusal(tiny_tensorrt_directory)
    assert isinstance(error, ResourceError)
    assert "--swap 8" in str(error)


def test_a_gpu_that_cannot_hold_the_slices_is_refused(
    tiny_tensorrt_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "find_tensorrt", object)
    monkeypatch.setattr(build, "CudaDevice", lambda: HostDevice(limit_bytes=10**6))
    error = refusal(tiny_tensorrt_directory, "--slices", "8")
    assert isinstance(error, ResourceError)
    assert "8 slices need 0.5 GB of the GPU's memory" in str(error)
    assert not (tiny_tensorrt_directory / "devices").exists()


def test_an_engine_without_reference_outputs_is_refused(
    tiny_tensorrt_directory: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "engine"
    shutil.copytree(tiny_tensorrt_directory, copy)
    (copy / REFERENCE_OUTPUTS_NAME).unlink()
    manifest = load_manifest(copy)
    files = {name: one for name, one in manifest.files.items() if name != REFERENCE_OUTPUTS_NAME}
    (copy / MANIFEST_NAME).write_text(dump_manifest(replace(manifest, files=files)))
    assert "without --no-reference-outputs" in str(refusal(copy))


def test_no_device_is_refused(tiny_tensorrt_directory: Path) -> None:
    try:
        build.CudaDevice()
    except (DependencyError, ProviderError):
        error = refusal(tiny_tensorrt_directory)
    else:
        pytest.skip("there is a device")
    assert isinstance(error, DependencyError | ProviderError)
    assert not (tiny_tensorrt_directory / "devices").exists()


def test_the_plans_hold_the_slices_asked_for_and_sixteen_bit_weights_once(
    tiny_tensorrt_directory: Path,
) -> None:
    with Engine.open(tiny_tensorrt_directory, check_files=False) as opened:
        few, many = build.prompt_shapes(opened, 8), build.prompt_shapes(opened, 24)
        manifest = opened.manifest
        for slices, shapes in ((8, few), (24, many)):
            read = sum(len(chunk.ids) for chunk in opened.prompt.prefix("", slices))
            assert shapes.global_rows > read + REASONING_TOKENS
            room = DeviceBudget(10**12, is_shared=False, rows=shapes.global_rows)
            assert largest_device_slices(manifest, room, 10**12) >= slices
        assert many.global_rows - few.global_rows >= 16 * manifest.vision.tokens_per_image
        assert many.local_rows == few.local_rows > manifest.text.sliding_window
    assert not many.has_decode_profile
