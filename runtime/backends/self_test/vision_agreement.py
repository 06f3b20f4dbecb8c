"""Agreement of another library's image tokens with onnxruntime's, tried once per engine and machine."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.base import VisionModel
from edge_medgemma.runtime.backends.self_test.test_image import synthetic_pixel_values
from edge_medgemma.runtime.errors import EngineError, ProviderError
from edge_medgemma.runtime.kernels.level import ONNXRUNTIME
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.store.number_cache import CachedNumbers
from edge_medgemma.runtime.store.places import Place
from edge_medgemma.runtime.store.verdicts import CachedVerdict
from edge_medgemma.runtime.store.verdicts import Verdict as Fault
from edge_medgemma.runtime.trial import Outcome, step

LOWEST_COSINE = 0.999
"""Least cosine of every image token. On the 4B shape bfloat16 leaves 0.99996 and the int8 tower 0.99994; a
tower that bfloat16 treats worse than this costs more than int8 does (0.9999) and stays where it is."""

VISION = "the vision tower"
"""What both do in a trial."""

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
    try_candidate: Callable[[], Outcome],
) -> VisionModel:
    """The candidate, if its features of a synthetic image are those of onnxruntime.

    The verdict is kept in the user's cache folder.

    Args:
        manifest: of the engine
        identity: of the candidate's library and this machine
        open_candidate: loads the model under test
        try_candidate: compares it, as `agreement` does, in a process that it may kill; its result is the cosine

    Raises:
        EngineError: onnxruntime itself does not survive the vision graph.
        ProviderError: the candidate does not, or the features differ, now or when they were compared.
    """
    cosines = CachedNumbers(Place.SELF_TESTS.folder, manifest.sha256, identity)
    faults = CachedVerdict(Place.SELF_TESTS.folder, manifest.sha256, identity, "faults")
    cached = cosines.read(["cosine"])
    if cached is None:
        fault = faults.read()
        if fault is None:
            cached, fault = _tried(try_candidate(), cosines, faults)
        _raise(fault)
    verdict = Verdict(**(cached or {"cosine": np.nan}))
    if not verdict.passed:
        raise ProviderError(
            f"its image features differ from onnxruntime's: cosine {verdict.cosine:.4f}, at least "
            f"{LOWEST_COSINE} is wanted; use --provider vision=cpu"
        )
    return open_candidate()


def agreement(
    manifest: Manifest,
    candidate: str,
    open_candidate: Callable[[], VisionModel],
    open_reference: Callable[[], VisionModel],
) -> float:
    """The lowest cosine between image tokens of a synthetic image; only one of the two is loaded at a time."""
    pixels = synthetic_pixel_values(manifest.vision)
    step(candidate, VISION)
    features = open_candidate().run(pixels)
    step(ONNXRUNTIME, VISION)
    return lowest_cosine(features, open_reference().run(pixels))


def _tried(
    outcome: Outcome, cosines: CachedNumbers, faults: CachedVerdict
) -> tuple[dict[str, float] | None, Fault | None]:
    """The end of a trial, kept where it is certain."""
    if outcome.fault is None:
        cosine = {"cosine": float(outcome.result)}
        cosines.write(cosine)
        return cosine, None
    fault = Fault(outcome.fault, outcome.culprit)
    if outcome.is_certain:
        faults.write(fault)
    return None, fault


def _raise(fault: Fault | None) -> None:
    if fault is None or fault.fault is None:
        return
    if fault.culprit == ONNXRUNTIME:
        raise EngineError(
            f"onnxruntime {fault.fault} on this processor; install another version of onnxruntime"
        )
    raise ProviderError(f"it {fault.fault} on this processor; use --provider vision=cpu")


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
