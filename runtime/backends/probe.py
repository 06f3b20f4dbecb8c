"""One node computed by every library: which of them work here, and why the others do not."""

import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.cuda.device import CudaDevice, DeviceProperties
from edge_medgemma.runtime.backends.cuda.session import (
    cuda_session,
    device_errors,
    require_cuda_provider,
)
from edge_medgemma.runtime.backends.onnxruntime.custom_ops import custom_ops_in_use
from edge_medgemma.runtime.backends.onnxruntime.session import import_onnxruntime, open_session
from edge_medgemma.runtime.backends.tensorrt.library import find_tensorrt
from edge_medgemma.runtime.errors import DependencyError, EdgeMedgemmaError, ProviderError
from edge_medgemma.runtime.kernels.level import kernel_level, level_absence
from edge_medgemma.runtime.trial import run_trial

PROBE = Path(__file__).parent / "probe.onnx"
"""y = x * x over four numbers."""

OPENVINO_TRIAL = "edge_medgemma.runtime.backends.openvino.start_trial"
"""Module that computes it with OpenVINO in a child process, which a processor's fault may kill."""

ONNXRUNTIME_PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-qnn",
    "onnxruntime-gpu-extended",
)
"""All put their files into one folder, `onnxruntime/`: the last one installed wins."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One library and whether it works."""

    name: str
    works: bool
    detail: str
    """Its version and device, or why it does not work and what to do."""


def probe_all() -> tuple[Probe, ...]:
    """Every library, in the order of speed where it works."""
    found = []
    for name, probe in _PROBES.items():
        try:
            found.append(Probe(name, True, probe()))
        except EdgeMedgemmaError as error:
            found.append(Probe(name, False, str(error)))
        except Exception as error:  # noqa: BLE001 a library that dies is one that does not work
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            found.append(Probe(name, False, f"fails to start: {reason}"))
    return tuple(found)


def installed_onnxruntimes() -> dict[str, str]:
    """Version by distribution, of those in the folder that is imported; two there are broken.

    One further down `sys.path`, as a virtual environment sees the system's, is only shadowed.
    """
    spec = importlib.util.find_spec("onnxruntime")
    imported = {Path(one).resolve() for one in (spec and spec.submodule_search_locations) or ()}
    found = {}
    for name in ONNXRUNTIME_PACKAGES:
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if Path(str(distribution.locate_file("onnxruntime"))).resolve() in imported:
            found[name] = distribution.version
    return found


def onnxruntime_conflict(installed: Mapping[str, str]) -> str:
    """The fault of this set of packages and how to mend it; empty where there is none."""
    if len(installed) < 2:
        return ""
    names = " ".join(installed)
    return (
        f"{len(installed)} packages share the folder onnxruntime/ ({names}); run: "
        f"pip uninstall -y {names}, then install one of them again"
    )


def require_cuda() -> DeviceProperties:
    """The first CUDA device, on which onnxruntime has just computed one node.

    A wheel lists CUDA among its providers whether or not it has kernels for the card.

    Raises:
        DependencyError: onnxruntime has no CUDA, or several packages of it are mixed.
        ProviderError: no device, or onnxruntime does not compute on it.
    """
    conflict = onnxruntime_conflict(installed_onnxruntimes())
    if conflict:
        raise DependencyError(conflict)
    require_cuda_provider()
    device = CudaDevice().properties()
    session = cuda_session(PROBE)
    with device_errors():
        result = _square(session)
    _check(result)
    return device


def _probe_tensorrt() -> str:
    library = find_tensorrt()
    device = CudaDevice().properties()
    return f"{library.name} {library.version} on {device.name}"


def _probe_cuda() -> str:
    device = require_cuda()
    return f"onnxruntime {import_onnxruntime().__version__} on {device.name}"


def _probe_native() -> str:
    absence = level_absence()
    if absence is not None:
        raise DependencyError(absence)
    return f"kernels of level {kernel_level()}"


def _probe_openvino() -> str:
    if importlib.util.find_spec("openvino") is None:
        raise DependencyError(
            "OpenVINO is not installed; from a checkout, run: pip install '.[cpu,openvino]'"
        )
    outcome = run_trial(OPENVINO_TRIAL, [])
    if outcome.fault is not None:
        raise ProviderError(f"OpenVINO {outcome.fault}; do not use it on this processor")
    return outcome.result


def _probe_cpu() -> str:
    _check(_square(open_session(PROBE, 1)))
    return f"onnxruntime {import_onnxruntime().__version__}; {custom_ops_in_use()}"


def _square(session: Any) -> NDArray[np.float32]:
    result: NDArray[np.float32] = session.run(None, {"x": np.full(4, 3, np.float32)})[0]
    return result


def _check(result: NDArray[np.float32]) -> None:
    if not (result == 9).all():
        raise ProviderError(f"computes 3 * 3 = {result[0]}; do not use it")


_PROBES: Mapping[str, Callable[[], str]] = {
    "tensorrt": _probe_tensorrt,
    "cuda": _probe_cuda,
    "native": _probe_native,
    "openvino": _probe_openvino,
    "cpu": _probe_cpu,
}
