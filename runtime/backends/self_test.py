"""Does another library see what onnxruntime sees? Tried once per engine, library and machine."""

import contextlib
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.model import VisionModel
from edge_medgemma.runtime.backends.picture import drawn_pixel_values
from edge_medgemma.runtime.errors import ProviderError, ResourceError
from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.manifest import Manifest

LOWEST_COSINE = 0.999
"""Of every single image token. On the 4B shape bfloat16 leaves 0.99996 and the int8 tower 0.99994; a
tower that bfloat16 treats worse than this costs more than int8 does (0.9999) and stays where it is."""

_STAMP_VERSION = 1

Features = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far a library's image features are from onnxruntime's."""

    cosine: float
    """The lowest of all image tokens; NaN where a feature is not a number."""

    @property
    def passed(self) -> bool:
        """Whether the library may be used."""
        return self.cosine >= LOWEST_COSINE


def open_tested(
    manifest: Manifest,
    identity: str,
    open_candidate: Callable[[], VisionModel],
    open_reference: Callable[[], VisionModel],
) -> VisionModel:
    """The candidate, if its features of a drawn picture are those of the reference.

    The verdict is kept in the user's cache folder. Only one of the two is loaded at a time.

    Args:
        manifest: of the engine
        identity: of the candidate's library and this machine
        open_candidate: loads the model under test
        open_reference: loads onnxruntime's

    Raises:
        ProviderError: the features differ, now or when they were compared.
    """
    path = _stamp_path(manifest, identity)
    verdict = _kept(path)
    model = None
    if verdict is None:
        pixels = drawn_pixel_values(manifest.vision)
        expected = open_reference().run(pixels)
        model = open_candidate()
        verdict = Verdict(lowest_cosine(model.run(pixels), expected))
        _keep(path, verdict)
    if not verdict.passed:
        raise ProviderError(
            f"its image features differ from onnxruntime's: cosine {verdict.cosine:.4f}, at least "
            f"{LOWEST_COSINE} is wanted; use --provider vision=cpu"
        )
    return model or open_candidate()


def lowest_cosine(features: Features, expected: Features) -> float:
    """The lowest cosine between tokens of the same place; NaN where one is not finite.

    Args:
        features: [N, tokens, hidden]
        expected: the same
    """
    a, b = features.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(((a * b).sum(axis=-1) / norms).min())


def _stamp_path(manifest: Manifest, identity: str) -> Path:
    parts = (str(_STAMP_VERSION), manifest.sha256, identity)
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return platformdirs.user_cache_path("edge-medgemma") / "self-tests" / f"{key}.json"


def _kept(path: Path) -> Verdict | None:
    """The verdict of an intact stamp; anything else means to test again."""
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
        if stamp["key"] != path.stem:
            return None
        return Verdict(float(stamp["cosine"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _keep(path: Path, verdict: Verdict) -> None:
    """A verdict that is no number is not kept; a read-only home costs time, nothing else."""
    if not math.isfinite(verdict.cosine):
        return
    stamp = {"key": path.stem, "cosine": verdict.cosine}
    with contextlib.suppress(ResourceError):
        write_atomically(path, json.dumps(stamp).encode())
