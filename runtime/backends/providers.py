"""Which library runs which part, and the door to all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from edge_medgemma.runtime.backends.model import DecoderModel, VisionModel
from edge_medgemma.runtime.errors import ProviderError
from edge_medgemma.runtime.manifest import Manifest


class Provider(StrEnum):
    """A library on a device."""

    AUTO = "auto"
    """The fastest that works here."""
    CPU = "cpu"
    """ONNX Runtime on the CPU."""


@dataclass(frozen=True, slots=True)
class Providers:
    """The choice for each part of an engine."""

    vision: Provider = Provider.AUTO
    decoder: Provider = Provider.AUTO


AUTOMATIC = Providers()


def parse_providers(words: Sequence[str]) -> Providers:
    """Providers from `NAME` for both parts or `vision=NAME`, `decoder=NAME`; later words win.

    Raises:
        ProviderError: an unknown part or name.
    """
    chosen = Providers()
    for word in words:
        part, has_part, name = word.rpartition("=")
        if name not in set(Provider) or (has_part and part not in ("vision", "decoder")):
            names = ", ".join(Provider)
            raise ProviderError(f"unknown provider '{word}'; expected [vision=|decoder=] {names}")
        parts = [part] if has_part else ["vision", "decoder"]
        chosen = replace(chosen, **dict.fromkeys(parts, Provider(name)))
    return chosen


def open_vision(
    directory: Path, manifest: Manifest, provider: Provider, threads: int | None
) -> VisionModel:
    """The vision graph of an engine directory on a provider.

    Raises:
        DependencyError: the provider's library is not installed.
        EngineError: the graph does not load.
    """
    from edge_medgemma.runtime.backends.ort import OrtVision

    return OrtVision(directory, threads)


def open_decoder(
    directory: Path, manifest: Manifest, provider: Provider, threads: int | None
) -> DecoderModel:
    """The decoder graph; see `open_vision`."""
    from edge_medgemma.runtime.backends.ort import OrtDecoder

    return OrtDecoder(directory, manifest, threads)
