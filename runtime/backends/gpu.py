"""GPUs: which engines they run, whether they work here, and what `auto` takes."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edge_medgemma.runtime.backends.base import DecoderModel, VisionModel
from edge_medgemma.runtime.backends.select import Fallback, Provider, Providers
from edge_medgemma.runtime.errors import EdgeMedgemmaError, EngineError, ProviderError
from edge_medgemma.runtime.manifest import DECODE_GRAPH, PREFILL_GRAPH, Manifest

if TYPE_CHECKING:  # what measures is imported where it is asked for
    from edge_medgemma.runtime.backends.gpu_peaks import DevicePeaks

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeviceBudget:
    """Memory of a device before anything of an engine is on it."""

    free_bytes: int
    is_shared: bool
    """Whether it is the host's memory, too: what one takes the other lacks."""
    rows: int | None = None
    """Rows of the global caches that its plans were built for; None where caches grow."""


class DeviceBackend(Protocol):
    """A library on a GPU."""

    def check(self, manifest: Manifest) -> None:
        """Refuse an engine that was exported for something else.

        Raises:
            EngineError: names the `--target` that it takes.
        """
        ...

    def identity(self, directory: Path, manifest: Manifest) -> str:
        """Library, version, device and driver: equal ones compute the same bits.

        Raises:
            DependencyError: something is not installed.
            ProviderError: no device, no kernels for it, or no plans of this place.
        """
        ...

    def budget(self, directory: Path, manifest: Manifest) -> DeviceBudget:
        """Memory that the device has now; raises as `identity` does."""
        ...

    def peaks(self, manifest: Manifest) -> "DevicePeaks":
        """Measured peaks in the type of the engine's activations; raises as `budget` does."""
        ...

    def open_vision(self, directory: Path, manifest: Manifest) -> VisionModel:
        """The vision graph; raises as `identity` does, and DeviceMemoryError."""
        ...

    def open_decoder(self, directory: Path, manifest: Manifest) -> DecoderModel:
        """The decoder graph; raises as `open_vision` does."""
        ...


class CudaBackend:
    """ONNX Runtime's CUDA provider."""

    def check(self, manifest: Manifest) -> None:
        """See `DeviceBackend.check`; its GroupQueryAttention has no float32."""
        if manifest.dialect != "ort" or manifest.precision.activations == "fp32":
            raise EngineError(
                f"cuda runs engines of onnxruntime's operators in 16 bits, this one is "
                f"{_described(manifest)}; export it with --target cuda"
            )
        if not {PREFILL_GRAPH, DECODE_GRAPH} <= set(manifest.files):
            raise EngineError(
                "this engine was exported for a CPU, or by an earlier version, and has no graphs for "
                "cuda; export it again with --target cuda"
            )

    def identity(self, directory: Path, manifest: Manifest) -> str:
        """See `DeviceBackend.identity`; computes one node before an engine is loaded."""
        from edge_medgemma.runtime.backends.onnxruntime.session import library_version
        from edge_medgemma.runtime.backends.probe import require_cuda

        device = require_cuda()
        return f"{library_version()} {device.identity}"

    def budget(self, directory: Path, manifest: Manifest) -> DeviceBudget:
        """See `DeviceBackend.budget`."""
        from edge_medgemma.runtime.backends.cuda.device import CudaDevice

        found = CudaDevice().properties()
        return DeviceBudget(found.free_bytes, found.is_integrated)

    def peaks(self, manifest: Manifest) -> "DevicePeaks":
        """See `DeviceBackend.peaks`."""
        from edge_medgemma.runtime.backends.cuda.device import CudaDevice
        from edge_medgemma.runtime.backends.cuda.session import CudaSessions
        from edge_medgemma.runtime.backends.gpu_peaks import cuda_product, measure_device_peaks

        product = cuda_product(CudaSessions(), manifest.precision.activations)
        return measure_device_peaks(CudaDevice(), product)

    def open_vision(self, directory: Path, manifest: Manifest) -> VisionModel:
        """See `DeviceBackend.open_vision`."""
        from edge_medgemma.runtime.backends.cuda.session import CudaVision, cuda_session

        return CudaVision(cuda_session(directory / "vision.onnx"))

    def open_decoder(self, directory: Path, manifest: Manifest) -> DecoderModel:
        """See `DeviceBackend.open_decoder`."""
        from edge_medgemma.runtime.backends.cuda.decoder import CudaDecoder
        from edge_medgemma.runtime.backends.cuda.device import CudaDevice
        from edge_medgemma.runtime.backends.cuda.session import CudaSessions

        return CudaDecoder(directory, manifest, CudaDevice(), CudaSessions())


class TensorRtBackend:
    """TensorRT or TensorRT-RTX, with the plans in the engine directory."""

    def check(self, manifest: Manifest) -> None:
        """See `DeviceBackend.check`."""
        if manifest.dialect != "trt" or manifest.precision.activations == "fp32":
            raise EngineError(
                f"tensorrt runs engines of standard operators in 16 bits, this one is "
                f"{_described(manifest)}; export it with --target tensorrt"
            )

    def identity(self, directory: Path, manifest: Manifest) -> str:
        """See `DeviceBackend.identity`; another build of the plans is another identity."""
        from edge_medgemma.runtime.backends.tensorrt.plan_runner import plan_record

        return plan_record(directory, manifest).identity

    def budget(self, directory: Path, manifest: Manifest) -> DeviceBudget:
        """See `DeviceBackend.budget`."""
        from edge_medgemma.runtime.backends.cuda.device import CudaDevice
        from edge_medgemma.runtime.backends.tensorrt.plan_runner import plan_record

        found = CudaDevice().properties()
        rows = plan_record(directory, manifest).global_rows
        return DeviceBudget(found.free_bytes, found.is_integrated, rows)

    def peaks(self, manifest: Manifest) -> "DevicePeaks":
        """See `DeviceBackend.peaks`."""
        from edge_medgemma.runtime.backends.cuda.device import CudaDevice
        from edge_medgemma.runtime.backends.gpu_peaks import (
            measure_device_peaks,
            tensorrt_product,
        )
        from edge_medgemma.runtime.backends.tensorrt.library import find_tensorrt

        device = CudaDevice()
        product = tensorrt_product(find_tensorrt(), device, manifest.precision.activations)
        return measure_device_peaks(device, product)

    def open_vision(self, directory: Path, manifest: Manifest) -> VisionModel:
        """See `DeviceBackend.open_vision`."""
        from edge_medgemma.runtime.backends.tensorrt.plan_runner import open_tensorrt_vision

        return open_tensorrt_vision(directory, manifest)

    def open_decoder(self, directory: Path, manifest: Manifest) -> DecoderModel:
        """See `DeviceBackend.open_decoder`."""
        from edge_medgemma.runtime.backends.tensorrt.plan_runner import open_tensorrt_decoder

        return open_tensorrt_decoder(directory, manifest)


Devices = Mapping[Provider, DeviceBackend]

DEVICES: Devices = {Provider.TENSORRT: TensorRtBackend(), Provider.CUDA: CudaBackend()}
"""GPU libraries in the order in which `auto` tries them; no engine fits both."""


@dataclass(frozen=True, slots=True)
class BackendSelection:
    """Libraries that run the parts of an engine."""

    vision: Provider
    """`auto` where a library of the CPU is still to be chosen."""
    decoder: Provider
    identities: Mapping[Provider, str] = field(default_factory=dict)
    """Identity of each GPU among them."""
    budgets: Mapping[Provider, DeviceBudget] = field(default_factory=dict)
    """Memory of each GPU among them before anything was loaded."""
    fallbacks: tuple[Fallback, ...] = ()
    """GPUs that `auto` did not take, and why."""

    @property
    def decoder_budget(self) -> DeviceBudget | None:
        """Memory of the GPU that runs the decoder; None on a CPU."""
        return self.budgets.get(self.decoder)


def choose(
    directory: Path, manifest: Manifest, wanted: Providers, devices: Devices
) -> BackendSelection:
    """Find a device for each part that is `auto`, and check those that were named.

    Raises:
        EngineError: a named device does not take the engine.
        DependencyError: its library is not installed.
        ProviderError: it does not work here, or nothing here runs the engine.
    """
    found: dict[Provider, tuple[str, DeviceBudget]] = {}
    for provider in (wanted.vision, wanted.decoder):
        if provider in devices:
            devices[provider].check(manifest)
            found[provider] = _identity_and_budget(devices[provider], directory, manifest)
    if Provider.AUTO not in (wanted.vision, wanted.decoder):
        return _selection(wanted, Provider.AUTO, found, ())
    fallbacks: list[Fallback] = []
    for provider, device in devices.items():
        try:
            device.check(manifest)
        except EngineError as error:
            fallbacks.append(Fallback(provider, str(error)))
            continue
        try:
            found[provider] = _identity_and_budget(device, directory, manifest)
            return _selection(wanted, provider, found, fallbacks)
        except EdgeMedgemmaError as error:
            fallbacks.append(Fallback(provider, str(error)))
            LOG.warning("the engine runs on the CPU, not on %s: %s", provider, error)
    return _selection(wanted, on_cpu(manifest, fallbacks), found, fallbacks)


def without_devices(
    selection: BackendSelection, manifest: Manifest, reason: str
) -> BackendSelection:
    """The same on the CPU, after its GPUs failed.

    Raises:
        ProviderError: a CPU does not run the engine.
    """
    fallbacks = (*selection.fallbacks, *(Fallback(one, reason) for one in selection.identities))
    cpu = on_cpu(manifest, fallbacks)
    vision, decoder = (
        cpu if part in selection.identities else part
        for part in (selection.vision, selection.decoder)
    )
    return BackendSelection(vision, decoder, fallbacks=fallbacks)


def on_cpu(manifest: Manifest, fallbacks: Sequence[Fallback]) -> Provider:
    """The provider of an engine where no GPU runs it; `auto` leaves open which library of the CPU.

    Raises:
        ProviderError: a CPU does not run it.
    """
    if manifest.precision.activations == "bf16":
        reasons = "; ".join(f"{one.provider}: {one.reason}" for one in fallbacks)
        raise ProviderError(
            f"this engine computes in bfloat16, which needs a GPU ({reasons}); for the CPU export "
            "it with --activations fp16 or --target cpu"
        )
    return Provider.AUTO if manifest.dialect == "ort" else Provider.CPU


def _identity_and_budget(
    device: DeviceBackend, directory: Path, manifest: Manifest
) -> tuple[str, DeviceBudget]:
    return device.identity(directory, manifest), device.budget(directory, manifest)


def _selection(
    wanted: Providers,
    automatic: Provider,
    found: Mapping[Provider, tuple[str, DeviceBudget]],
    fallbacks: Sequence[Fallback],
) -> BackendSelection:
    """The wanted providers, `automatic` in the place of `auto`."""
    vision, decoder = (
        automatic if part is Provider.AUTO else part for part in (wanted.vision, wanted.decoder)
    )
    identities = {provider: identity for provider, (identity, _) in found.items()}
    budgets = {provider: budget for provider, (_, budget) in found.items()}
    return BackendSelection(vision, decoder, identities, budgets, tuple(fallbacks))


def _described(manifest: Manifest) -> str:
    operators = "onnxruntime's operators" if manifest.dialect == "ort" else "standard operators"
    return f"{operators} in {manifest.precision.activations}"
