"""Agreement of another library's image tokens with onnxruntime's, tried once per engine and machine."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.base import VisionModel
from edge_medgemma.runtime.backends.self_test.test_image import synthetic_pixel_values
from edge_medgemma.runtime.errors import ProviderError
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.store.number_cache import CachedNumbers
from edge_medgemma.runtime.store.places import Place

LOWEST_COSINE = 0.999
"""Least cosine of every image token. On the 4B shape bfloat16 leaves 0.99996 and the int8 tower 0.99994; a
tower that bfloat16 treats worse than this costs more than int8 does (0.9999) and stays where it is."""

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
    """The candidate, if its features of a synthetic image are those of the reference.

    The verdict is kept in the user's cache folder. Only one of the two is loaded at a time.

    Args:
        manifest: of the engine
        identity: of the candidate's library and this machine
        open_candidate: loads the model under test
        open_reference: loads onnxruntime's

    Raises:
        ProviderError: the features differ, now or when they were compared.
    """
    cache = CachedNumbers(Place.SELF_TESTS.folder, manifest.sha256, identity)
    cached = cache.read(["cosine"])
    verdict = Verdict(**cached) if cached else None
    model = None
    if verdict is None:
        pixels = synthetic_pixel_values(manifest.vision)
        expected = open_reference().run(pixels)
        model = open_candidate()
        verdict = Verdict(lowest_cosine(model.run(pixels), expected))
        cache.write({"cosine": verdict.cosine})
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
