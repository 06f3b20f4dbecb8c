"""A triage from the command line on the CUDA backend; the host stands in for the GPU."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.host_device import HostDevice
from support.host_sessions import HostSessions

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.reference_outputs import export_with_reference_outputs
from edge_medgemma.export.target import Target
from edge_medgemma.runtime.backends import probe
from edge_medgemma.runtime.backends.cuda import device as cuda_device
from edge_medgemma.runtime.backends.cuda import session as cuda_session_module
from edge_medgemma.runtime.backends.onnxruntime.session import open_session
from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.manifest import DECODE_GRAPH, PREFILL_GRAPH

SCAN = Path(__file__).resolve().parents[3] / "data" / "ct_head"


@pytest.fixture
def engine(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """The tiny engine as it is exported for CUDA, with reference outputs."""
    directory = tmp_path / "engine"
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    target = Target("ort", "fp16")
    export_with_reference_outputs(
        checkpoint, directory, precision="fp16", block_size=32, target=target
    )
    return directory


def test_a_scan_is_triaged_on_the_device(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, sessions, visions = HostDevice(), HostSessions(), []

    def open_vision(graph: Path) -> object:
        visions.append(graph.name)
        return open_session(graph, 1)

    monkeypatch.setattr(probe, "require_cuda", device.properties)
    monkeypatch.setattr(cuda_device, "CudaDevice", lambda: device)
    monkeypatch.setattr(cuda_session_module, "CudaSessions", lambda: sessions)
    monkeypatch.setattr(cuda_session_module, "cuda_session", open_vision)
    out = tmp_path / "out"
    arguments = ["triage", str(SCAN), "--engine", str(engine), "--provider", "cuda"]
    result = CliRunner().invoke(cli, [*arguments, "--slices", "2", "--out", str(out)])
    assert result.exit_code == 0, (result.output, result.exception)
    assert set(visions) == {"vision.onnx"}
    assert {name for name, _ in sessions.opened} == {PREFILL_GRAPH, DECODE_GRAPH}
    assert sessions.runs, "the device was not used"
    assert json.loads((out / "triage.json").read_text())["studies"][0]["slices"]
