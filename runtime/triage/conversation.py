"""A scan read once, to be asked freely and often."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.sampling import Sampling
from edge_medgemma.runtime.profiling.spans import SpanRecorder, total_s
from edge_medgemma.runtime.slicing.sampling import sample_slices
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.volume import Problem
from edge_medgemma.runtime.slicing.windows import render_stack
from edge_medgemma.runtime.triage.plan import Reading, plan_readings
from edge_medgemma.runtime.triage.questions import (
    REASONING_TOKENS,
    Progress,
    no_progress,
    read_slices,
)
from edge_medgemma.runtime.triage.study import DEFAULT_OPTIONS, TriageOptions

GREEDY = Sampling()

_UNFINISHED_CHARACTER = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """A few characters of an answer, as they come."""

    text: str
    """The model's own: escape it for wherever it is shown. Empty where a character is unfinished."""
    is_thought: bool
    """Part of the reasoning that precedes the answer."""
    tokens: int
    """Generated up to here."""
    elapsed_s: float
    """Since the question was put."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Slices that the engine has read; every question starts from them anew."""

    engine: Engine
    prefix: Prefix
    problems: tuple[Problem, ...]
    """Everything known to be wrong with the slices."""
    slices: int
    timings_s: Mapping[str, float]
    """Seconds of `vision` and `prefill`, the loading of each part included."""

    def ask(
        self,
        question: str,
        sampling: Sampling = GREEDY,
        max_tokens: int = REASONING_TOKENS,
    ) -> Iterator[AnswerPiece]:
        """The model's free answer, piece by piece.

        Raises:
            ProtocolError: the question spells a control token.
        """
        tokens = self.engine.manifest.tokens
        ids: list[int] = []
        shown = ""
        is_thought = False
        asked = self.engine.prompt.question(question)
        for count, step in enumerate(self.prefix.generate(asked, sampling, max_tokens), start=1):
            if step.token_id in (tokens.thought_begin, tokens.thought_end):
                is_thought = step.token_id == tokens.thought_begin
                ids, shown = [], ""
                continue
            ids.append(step.token_id)
            text = self.engine.tokenizer.decode(ids)
            new = ""
            if len(text) > len(shown) and not text.endswith(_UNFINISHED_CHARACTER):
                new, shown = text[len(shown) :], text
            yield AnswerPiece(new, is_thought, count, step.elapsed_s)


def open_scan(
    engine: Engine,
    scan: Path,
    options: TriageOptions = DEFAULT_OPTIONS,
    on_progress: Progress = no_progress,
) -> Conversation:
    """Read one series of a scan; its protocol gives the instruction and the number of slices.

    Raises:
        ScanError: nothing in the scan can be read, no protocol fits it, or it holds several
            studies and none was chosen.
    """
    listing = find_series(scan, partial(on_progress, "discover"))
    reading = _only(plan_readings(listing, options.protocol, options.series_uid))
    if reading.protocol is None or reading.series is None:
        raise ScanError(" ".join(problem.detail for problem in reading.problems))
    indices = sample_slices(reading.series.shape[0], options.slices or reading.protocol.slices)
    volume = read_volume(reading.series, indices, partial(on_progress, "decode"))
    stack = render_stack(volume)
    recorder = SpanRecorder()
    with recorder.span("vision"):
        features = engine.encode_images(stack.pixels, partial(on_progress, "vision"))
    with recorder.span("prefill"):
        prefix = read_slices(engine, reading.protocol.instruction, features, on_progress)
    problems = (*reading.problems, *stack.problems)
    return Conversation(engine, prefix, problems, len(features), total_s(recorder.spans))


def _only(readings: Sequence[Reading]) -> Reading:
    if len(readings) == 1:
        return readings[0]
    uids = sorted({reading.series.series_uid for reading in readings if reading.series})
    raise ScanError(
        f"the scan holds {len(readings)} readings; choose one with --series and --protocol "
        f"({', '.join(uids)})"
    )
