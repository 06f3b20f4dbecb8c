"""Libraries of the CPU: their names, and which of them runs which part of an engine."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edge_medgemma.runtime.backends.base import DecoderModel, VisionModel
from edge_medgemma.runtime.backends.onnxruntime.custom_ops import custom_ops_in_use
from edge_medgemma.runtime.errors import DependencyError, ProviderError
from edge_medgemma.runtime.host import processor_name
from edge_medgemma.runtime.kernels.level import kernel_level
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.trial import run_trial


class Provider(StrEnum):
    """A library on a device."""

    AUTO = "auto"
    """The fastest that works here."""
    CPU = "cpu"
    """ONNX Runtime on the CPU."""
    OPENVINO = "openvino"
    """OpenVINO on the CPU; the vision part only."""
    NATIVE = "native"
    """This package's own kernels on the CPU; the vision part only."""
    CUDA = "cuda"
    """ONNX Runtime on an NVIDIA GPU."""
    TENSORRT = "tensorrt"
    """TensorRT on an NVIDIA GPU, its plans made by `edge-medgemma build`."""


@dataclass(frozen=True, slots=True)
class Providers:
    """The choice for each part of an engine."""

    vision: Provider = Provider.AUTO
    decoder: Provider = Provider.AUTO


AUTOMATIC = Providers()

VISION_ONLY = frozenset([Provider.OPENVINO, Provider.NATIVE])

FASTER_FROM_BYTES = 64 * 2**20
"""Size of a vision tower from which `auto` takes a faster library: to import OpenVINO and to compile
takes half a second longer than onnxruntime, which a tower of this size wins back within a slice."""

FASTER_VISION = {Provider.NATIVE: FASTER_FROM_BYTES, Provider.OPENVINO: FASTER_FROM_BYTES}
"""Libraries that `auto` tries before onnxruntime, the fastest first, by the least bytes of a tower."""

TRIAL = "edge_medgemma.runtime.backends.vision_trial"
"""Module that compares a library with onnxruntime in a child process."""

TRIAL_CPU_LIMIT_S, TRIAL_WALL_LIMIT_S = 7200, 1800.0
"""Far beyond two slices of the largest tower on the slowest processor."""

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fallback:
    """Why `auto` did not take a faster library."""

    provider: Provider
    reason: str


@dataclass(frozen=True, slots=True)
class OpenedVision:
    """The vision graph on the library that runs it."""

    model: VisionModel
    provider: Provider
    fallbacks: tuple[Fallback, ...] = ()
    """Libraries that were not taken, the fastest first."""


def parse_providers(words: Sequence[str]) -> Providers:
    """Providers from `NAME` for both parts or `vision=NAME`, `decoder=NAME`; later words win.

    Raises:
        ProviderError: an unknown part or name, or a part that the library does not run.
    """
    chosen = Providers()
    for word in words:
        part, has_part, name = word.rpartition("=")
        if name not in set(Provider) or (has_part and part not in ("vision", "decoder")):
            names = ", ".join(Provider)
            raise ProviderError(f"unknown provider '{word}'; expected [vision=|decoder=] {names}")
        parts = [part] if has_part else ["vision", "decoder"]
        if Provider(name) in VISION_ONLY and "decoder" in parts:
            raise ProviderError(f"{name} runs the vision part only; write --provider vision={name}")
        chosen = replace(chosen, **dict.fromkeys(parts, Provider(name)))
    return chosen


def open_vision(
    directory: Path, manifest: Manifest, provider: Provider, threads: int | None
) -> OpenedVision:
    """The vision graph of an engine directory on a library of the CPU.

    GPUs are chosen before, see `backends.gpu`. `auto` takes the first of `FASTER_VISION` for which
    the tower is large enough to be worth its start, which runs here and whose image tokens agree
    with onnxruntime's; the result says why those before it were not taken.

    Raises:
        DependencyError: the provider's library is not installed.
        EngineError: the graph does not load.
        ProviderError: the library does not work here or fails its self-test.
    """
    if provider is not Provider.AUTO:
        return OpenedVision(_VISION[provider](directory, manifest, threads), provider)
    fallbacks: list[Fallback] = []
    for faster in FASTER_VISION:
        unfit = unfit_for(manifest, faster)
        if unfit is not None:
            fallbacks.append(unfit)
            continue
        try:
            model = _VISION[faster](directory, manifest, threads)
            return OpenedVision(model, faster, tuple(fallbacks))
        except DependencyError as error:
            fallbacks.append(Fallback(faster, str(error)))
        except ProviderError as error:
            fallbacks.append(Fallback(faster, str(error)))
            LOG.warning("vision runs on onnxruntime, not on %s: %s", faster, error)
    model = _VISION[Provider.CPU](directory, manifest, threads)
    return OpenedVision(model, Provider.CPU, tuple(fallbacks))


def unfit_for(manifest: Manifest, faster: Provider) -> Fallback | None:
    """Why this vision tower is none for a library of FASTER_VISION, whether or not that works here."""
    precision = manifest.precision.vision
    if faster is Provider.NATIVE and (
        precision not in ("int8", "fp32") or manifest.dialect != "ort"
    ):
        return Fallback(
            faster, f"its kernels are for int8 and fp32 towers, this one is {precision}"
        )
    size = manifest.files["vision.data"].bytes
    if size >= FASTER_VISION[faster]:
        return None
    reason = f"a vision tower of {size / 1e6:.0f} MB gains less than {faster} takes to load"
    return Fallback(faster, reason)


def open_decoder(
    directory: Path,
    manifest: Manifest,
    provider: Provider,
    threads: int | None,
) -> DecoderModel:
    """The decoder graph on onnxruntime, the only library of the CPU that runs it.

    Raises:
        EngineError: the graph does not load.
        ProviderError: the provider is not one of the CPU's.
    """
    if provider not in (Provider.AUTO, Provider.CPU):
        raise ProviderError(f"{provider} does not run the decoder on a CPU; use --provider cpu")
    from edge_medgemma.runtime.backends.onnxruntime.decoder import OrtDecoder

    return OrtDecoder(directory, manifest, threads)


def _ort_vision(directory: Path, manifest: Manifest, threads: int | None) -> VisionModel:
    from edge_medgemma.runtime.backends.onnxruntime.session import OrtVision

    # onnxruntime cannot make the weights of `trt`, which lie in blocks, unsigned
    is_int8 = manifest.precision.vision == "int8" and manifest.dialect == "ort"
    model = OrtVision(directory, threads, has_int8_products=is_int8)
    model.check(manifest)
    return model


def open_untested_vision(
    directory: Path, manifest: Manifest, provider: Provider, threads: int | None
) -> VisionModel:
    """The vision graph on a library that nobody has compared with onnxruntime: for the comparison."""
    return _UNTESTED[provider](directory, manifest, threads)


def _openvino_untested(directory: Path, _: Manifest, threads: int | None) -> VisionModel:
    from edge_medgemma.runtime.backends.openvino.vision import OpenVinoVision

    return OpenVinoVision(directory, threads)


def _openvino_vision(directory: Path, manifest: Manifest, threads: int | None) -> VisionModel:
    from edge_medgemma.runtime.backends.openvino.vision import openvino_identity

    return _tested(directory, manifest, Provider.OPENVINO, threads, openvino_identity())


def _tested(
    directory: Path, manifest: Manifest, provider: Provider, threads: int | None, identity: str
) -> VisionModel:
    """A library that agreed with onnxruntime in a child process, now or on an earlier day."""
    from edge_medgemma.runtime.backends.self_test.vision_agreement import open_tested

    words = [str(directory.absolute()), provider, str(threads or 0)]
    return open_tested(
        manifest,
        identity,
        partial(_UNTESTED[provider], directory, manifest, threads),
        partial(
            run_trial, TRIAL, words, cpu_limit_s=TRIAL_CPU_LIMIT_S, wall_limit_s=TRIAL_WALL_LIMIT_S
        ),
    )


def _native_untested(directory: Path, manifest: Manifest, threads: int | None) -> VisionModel:
    from edge_medgemma.runtime.backends.native.vision import NativeVision

    return NativeVision(directory, manifest, threads)


def _native_vision(directory: Path, manifest: Manifest, threads: int | None) -> VisionModel:
    from edge_medgemma.runtime.backends.native.tower import Tower
    from edge_medgemma.runtime.backends.native.vision import native_identity

    Tower(directory, manifest)  # a graph of another kind is no fault of the kernels
    return _tested(directory, manifest, Provider.NATIVE, threads, native_identity())


_UNTESTED: Mapping[Provider, Callable[[Path, Manifest, int | None], VisionModel]] = {
    Provider.CPU: _ort_vision,
    Provider.OPENVINO: _openvino_untested,
    Provider.NATIVE: _native_untested,
}

_VISION: Mapping[Provider, Callable[[Path, Manifest, int | None], VisionModel]] = {
    Provider.CPU: _ort_vision,
    Provider.OPENVINO: _openvino_vision,
    Provider.NATIVE: _native_vision,
}


def provider_identity(provider: Provider) -> str:
    """A library on this processor and the versions it may take: equal ones compute the same bits.

    A home folder may be shared by machines, and kernels are chosen by the processor.

    Raises:
        DependencyError: onnxruntime is not installed.
    """
    from edge_medgemma.runtime.backends.onnxruntime.session import library_version

    try:
        openvino = version("openvino")
    except PackageNotFoundError:
        openvino = "none"
    kernels = f"level {kernel_level()} {custom_ops_in_use()}"
    return f"{provider} {library_version()} {kernels} openvino {openvino} on {_processor()}"


@cache
def _processor() -> str:
    return processor_name()
