"""Whether a study fits: into the positions of the engine and into memory."""

import logging
from collections.abc import Sequence

from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.positions import require_prompt
from edge_medgemma.runtime.slicing.volume import Series
from edge_medgemma.runtime.triage.pipeline import StudyContext
from edge_medgemma.runtime.triage.protocol import Finding, Protocol
from edge_medgemma.runtime.triage.report import Effort
from edge_medgemma.runtime.triage.scoring.questions import (
    FINAL_ANSWER,
    REASONING_REQUEST,
    REASONING_TOKENS,
)

SPARE_BYTES = 64 * 2**20
"""Left of the available memory: other programs take some between this look and the last slice."""

LOG = logging.getLogger(__name__)


def slices_in_memory(engine: Engine, protocol: Protocol, series: Series) -> int | None:
    """Most slices that memory holds, where it holds some but not all that the protocol wants; else None.

    A box in a ward looks at fewer slices beside an open browser instead of at none; what fewer slices
    cannot show is judged by coverage, as ever.
    """
    wanted = min(protocol.slices, series.shape[0])
    held = engine.slices_in_memory(series.shape[1:], SPARE_BYTES)
    if held is None or not 0 < held < wanted:
        return None
    LOG.warning(
        "memory holds %d of the %d slices that are to be looked at; for all of them, close other "
        "programs",
        held,
        wanted,
    )
    return held


def require_room(context: StudyContext, slices: int, further_tokens: int | None = None) -> None:
    """Refuse a study that does not fit, before any of it is read.

    Args:
        context: of the study.
        slices: to be shown.
        further_tokens: of question and answer; None counts those of the protocol.

    Raises:
        EngineError: more tokens than the engine has positions for; says how many slices would fit.
        ResourceError: too little memory for so many slices; says how many would fit.
    """
    engine = context.engine
    if further_tokens is None:
        further_tokens = _most_tokens(engine, context.findings, context.options.effort)
    instruction = context.protocol.instruction
    require_prompt(engine.prompt, engine.manifest.text, instruction, slices, further_tokens)
    engine.require_memory(slices, context.series.shape[1:])


def _most_tokens(engine: Engine, findings: Sequence[Finding], effort: Effort) -> int:
    """Most tokens that follow the slices: the longest question, and reasoning where there is some."""
    if effort is Effort.FAST:
        return max((len(engine.prompt.question(f.question)) for f in findings), default=0)
    ending = len(engine.tokenizer.encode("\n\n" + FINAL_ANSWER)) + 1  # and the end of a thought
    questions = (engine.prompt.question(f.question + REASONING_REQUEST) for f in findings)
    return max((len(ids) + REASONING_TOKENS + ending for ids in questions), default=0)
