"""All prompts of `verify` through an engine and through its checkpoint."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edge_medgemma.export.verification.cases import LONG_SENTENCE, verification_cases
from edge_medgemma.export.verification.comparison import CaseComparison, compare_case
from edge_medgemma.export.verification.reference import Reference
from edge_medgemma.export.verification.source import require_source
from edge_medgemma.runtime.backends.openvino.vision import has_bfloat16, openvino_core
from edge_medgemma.runtime.backends.select import Provider
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.manifest import Precision

GREEDY_TOKENS = 64


def verify_engine(
    engine: Engine,
    checkpoint: Path,
    *,
    adapter: Path | None = None,
    greedy_tokens: int = GREEDY_TOKENS,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[CaseComparison, ...]:
    """Compare text, one image, three images and a prompt longer than the window.

    Args:
        engine: opened engine directory
        checkpoint: folder of the Hugging Face checkpoint it was exported from
        adapter: folder of the PEFT adapter it was exported with
        greedy_tokens: length of the compared continuation
        on_progress: called with prompts done and prompts in all

    Raises:
        DependencyError: torch, transformers or peft is not installed.
        CheckpointError: the folders are not those of the engine, or transformers cannot load them.
        EngineError: the engine has random weights.
    """
    require_source(engine.manifest, checkpoint, adapter)
    reference = Reference(checkpoint, adapter)
    cases = list(
        verification_cases(
            reference.image_size, reference.window, reference.num_tokens(LONG_SENTENCE)
        )
    )
    comparisons = []
    for done, case in enumerate(cases, start=1):
        comparisons.append(compare_case(engine, reference, case, greedy_tokens))
        if on_progress:
            on_progress(done, len(cases))
    return tuple(comparisons)


def computed_precision(engine: Engine) -> Precision:
    """The precision of an engine that has run, as this machine computed it.

    OpenVINO runs a float32 tower in bfloat16 on a processor that multiplies that.
    """
    precision = engine.manifest.precision
    is_float = precision.activations == "fp32"
    if is_float and engine.vision_provider is Provider.OPENVINO and has_bfloat16(openvino_core()):
        return replace(precision, activations="bf16")
    return precision
