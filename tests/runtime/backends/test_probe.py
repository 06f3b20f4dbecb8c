"""A CUDA that does not compute is refused before an engine is loaded."""

from types import SimpleNamespace

import numpy as np
import pytest
from support.host_device import HostDevice

from edge_medgemma.runtime.backends import probe
from edge_medgemma.runtime.backends.cuda import session as cuda_session_module
from edge_medgemma.runtime.errors import DependencyError, ProviderError


def test_mixed_packages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}
    monkeypatch.setattr(probe, "installed_onnxruntimes", lambda: both)
    with pytest.raises(DependencyError, match="pip uninstall -y onnxruntime onnxruntime-gpu"):
        probe.require_cuda()


def test_an_onnxruntime_without_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    without = SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(cuda_session_module, "import_onnxruntime", lambda: without)
    with pytest.raises(DependencyError, match="has no CUDA"):
        probe.require_cuda()


class Session:
    """onnxruntime's CUDA session of the probe: gives a result, or an error."""

    def __init__(self, result: float | str) -> None:
        self._result = result

    def run(self, names: None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        if isinstance(self._result, str):
            raise RuntimeError(self._result)  # noqa: TRY004 as onnxruntime raises
        return [np.full_like(feeds["x"], self._result)]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("CUDA failure 209: no kernel image is available\nat line 3", "no kernels for this GPU"),
        ("CUDA failure 700: an illegal memory access", "failed on CUDA"),
        (0.0, r"computes 3 \* 3 = 0"),
    ],
)
def test_a_gpu_that_does_not_compute_is_refused(
    monkeypatch: pytest.MonkeyPatch, result: float | str, message: str
) -> None:
    monkeypatch.setattr(probe, "installed_onnxruntimes", dict)
    monkeypatch.setattr(probe, "require_cuda_provider", lambda: None)
    monkeypatch.setattr(probe, "CudaDevice", HostDevice)
    monkeypatch.setattr(probe, "cuda_session", lambda graph: Session(result))
    with pytest.raises(ProviderError, match=message) as caught:
        probe.require_cuda()
    assert "\n" not in str(caught.value)


def test_a_gpu_that_computes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "installed_onnxruntimes", dict)
    monkeypatch.setattr(probe, "require_cuda_provider", lambda: None)
    monkeypatch.setattr(probe, "CudaDevice", HostDevice)
    monkeypatch.setattr(probe, "cuda_session", lambda graph: Session(9.0))
    assert probe.require_cuda() == HostDevice().properties()
