import json
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.host_backend import HostBackend
from support.schemas import assert_valid

from edge_medgemma.runtime.backends import probe
from edge_medgemma.runtime.backends.gpu import DeviceBudget
from edge_medgemma.runtime.backends.probe import installed_onnxruntimes, onnxruntime_conflict
from edge_medgemma.runtime.backends.select import Provider
from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.commands import doctor
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.documents import dump_json
from edge_medgemma.runtime.errors import DependencyError, EngineError
from edge_medgemma.runtime.kernels.level import kernel_level, kernel_notes
from edge_medgemma.runtime.manifest import load_manifest
from edge_medgemma.runtime.memory.device_memory import decoder_shapes
from edge_medgemma.runtime.memory.host_memory import largest_slices
from edge_medgemma.runtime.topology import default_threads


def test_two_packages_in_one_folder_are_a_problem_with_a_way_out() -> None:
    assert onnxruntime_conflict({"onnxruntime": "1.32.0"}) == ""
    found = onnxruntime_conflict({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"})
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in found


def test_only_packages_in_the_imported_folder_are_in_conflict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, system = tmp_path / "own", tmp_path / "system"
    for folder, name in ((own, "onnxruntime-gpu"), (system, "onnxruntime")):
        record = folder / f"{name.replace('-', '_')}-1.32.0.dist-info" / "METADATA"
        record.parent.mkdir(parents=True)
        record.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.32.0\n")
        (folder / "onnxruntime").mkdir()
        (folder / "onnxruntime" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(sys, "path", [str(own), str(system)])
    assert installed_onnxruntimes() == {"onnxruntime-gpu": "1.32.0"}

    shutil.copytree(system, own, dirs_exist_ok=True)
    assert set(installed_onnxruntimes()) == {"onnxruntime", "onnxruntime-gpu"}


def test_the_demo_engine_is_diagnosed_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "processor_name", lambda: "A Processor 9000")
    monkeypatch.setattr(doctor, "available_bytes", lambda: 2 * 10**9)
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 0, result.output
    most = largest_slices(load_manifest(BUILTIN_ENGINE), 2 * 10**9)
    for line in (
        "  precision: decoder int4, head int8, vision tower fp32",
        "  parity: ",
        "processor: A Processor 9000",
        f"threads: {default_threads()}, one for each ",
        f"kernels: {kernel_level() or 'none of ours'}",
        "heat: ",
        "memory available: 2.0 GB of ",
        "  vision tower: cpu",
        "  decoder: cpu",
        "  TensorRT plans: none",
        f"  CPU memory: at most {most} slices",
    ):
        assert line in result.stdout
    words = " ".join(result.stdout.split())  # without the breaks of long lines
    assert all(note in words for note in kernel_notes())
    for one in probe.probe_all():  # what does not work is said once, in the table
        assert (f"{one.name} not used" in words) == (one.works and one.name != "cpu")
    assert "install edge-medgemma" not in result.stdout
    assert "PROBLEM" not in result.stdout


def test_a_broken_installation_is_said_and_exits_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}
    monkeypatch.setattr(doctor, "installed_onnxruntimes", lambda: both)
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 1
    assert "PROBLEM: 2 packages share the folder onnxruntime/" in result.stdout


@pytest.mark.command("doctor")
def test_json_says_what_runs_the_engine_and_why_nothing_faster_does(
    tiny_engine_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "available_bytes", lambda: 10**9)
    arguments = ["doctor", "--json", "--engine", str(tiny_engine_directory)]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert_valid(found, "doctor")
    works = {one["name"]: one["works"] for one in found["providers"]}
    assert list(works) == ["tensorrt", "cuda", "native", "openvino", "cpu"]
    assert works["cpu"]
    engine = found["engine"]
    assert (engine["vision_provider"], engine["decoder_provider"]) == ("cpu", "cpu")
    reasons = {one["provider"]: one["reason"] for one in engine["fallbacks"]}
    assert "--target tensorrt" in reasons["tensorrt"]
    assert "--target cuda" in reasons["cuda"]
    assert "gains less" in reasons["native"]
    assert "gains less" in reasons["openvino"]
    assert engine["tensorrt_plans"] == "none"
    assert engine["max_slices_on_cpu"] == largest_slices(
        load_manifest(tiny_engine_directory), 10**9
    )


def test_a_gpu_that_runs_the_engine_is_said_with_what_it_holds(
    tiny_tensorrt_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = decoder_shapes(load_manifest(tiny_tensorrt_directory), 7).global_rows
    backend = HostBackend(room=DeviceBudget(12 * 10**9, is_shared=False, rows=rows))
    monkeypatch.setattr(doctor, "DEVICES", {Provider.TENSORRT: backend})
    result = CliRunner().invoke(cli, ["doctor", "--engine", str(tiny_tensorrt_directory)])
    assert "vision tower: tensorrt\n  decoder: tensorrt" in result.stdout
    assert "GPU memory: at most 7 slices; 12.0 GB free" in result.stdout


def test_where_nothing_is_installed_every_library_says_what_to_do(
    tiny_engine_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> str:
        raise DependencyError("not installed; from a checkout, run: pip install '.[cpu]'")

    nothing = dict.fromkeys(("tensorrt", "cuda", "native", "openvino", "cpu"), absent)
    monkeypatch.setattr(probe, "_PROBES", nothing)
    monkeypatch.setattr(doctor, "installed_onnxruntimes", dict)
    found = doctor.diagnose(tiny_engine_directory)
    assert_valid(json.loads(dump_json(found)), "doctor")
    assert json.loads(dump_json(found))["onnxruntime_packages"] == {}
    assert not any(one.works for one in found.providers)
    assert found.problems == ("no provider works; from a checkout, run: pip install '.[cpu]'",)


def test_a_library_that_dies_is_one_that_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies() -> str:
        raise RuntimeError("symbol not found\nin some library")

    monkeypatch.setattr(probe, "_PROBES", {"cpu": dies})
    (found,) = probe.probe_all()
    assert (found.works, found.detail) == (False, "fails to start: symbol not found")


def test_no_engine_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no engine directory"):
        doctor.diagnose(tmp_path / "nothing")
