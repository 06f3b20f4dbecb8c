"""A scan read once, to be asked freely and often."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edge_medgemma.runtime.errors import AnswerError, ScanError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.grammar import Constraint
from edge_medgemma.runtime.generation.outputs import FinishReason
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.reasoning_split import Reply
from edge_medgemma.runtime.generation.repetition import stop_repetition
from edge_medgemma.runtime.generation.sampling import Sampling
from edge_medgemma.runtime.slicing.sampling import sample_slices
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.volume import Problem
from edge_medgemma.runtime.slicing.windows import render_stack
from edge_medgemma.runtime.tracing.spans import Span, SpanRecorder, total_s
from edge_medgemma.runtime.triage.options import DEFAULT_OPTIONS, TriageOptions
from edge_medgemma.runtime.triage.prefill import SlicePrefiller
from edge_medgemma.runtime.triage.protocol import Protocol
from edge_medgemma.runtime.triage.questions import REASONING_TOKENS, Progress, no_progress
from edge_medgemma.runtime.triage.report import CacheHits
from edge_medgemma.runtime.triage.worklist import StudyTask, plan_studies

GREEDY = Sampling()

JSON_REQUEST = " Answer with one JSON object and nothing else."

FINISH_REASON_LABELS: Mapping[FinishReason | None, str] = {
    FinishReason.LENGTH: "stopped: --max-tokens are spent",
    FinishReason.REPETITION: "stopped: the model repeats itself",
}

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
    ending: FinishReason | None = None
    """Why it ended; the last piece has one, and no text."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Slices that the engine has read; every question starts from them anew."""

    engine: Engine
    prefix: Prefix
    protocol: Protocol
    """Whose instruction opens the prompt."""
    problems: tuple[Problem, ...]
    """Everything known to be wrong with the slices."""
    slices: int
    recalled: CacheHits
    """What came from the scan cache."""
    spans: tuple[Span, ...]
    """Of reading the slices."""

    @property
    def timings_s(self) -> dict[str, float]:
        """Seconds per stage, the loading of each part included in its first use; no `vision` where
        it was not needed."""
        return total_s(self.spans)

    def ask(
        self,
        question: str,
        sampling: Sampling = GREEDY,
        max_tokens: int = REASONING_TOKENS,
        constraint: Constraint | None = None,
    ) -> Iterator[AnswerPiece]:
        """The model's free answer, piece by piece, or one that a constraint shapes.

        Raises:
            ProtocolError: the question spells a control token.
        """
        reply = Reply(self.engine.manifest.tokens)
        was_thought, shown, count, elapsed_s = False, "", 0, 0.0
        asked = self.engine.prompt.question(question)
        steps = self.prefix.generate(asked, sampling, max_tokens, constraint)
        if constraint is None:  # equal entries of an array are no loop; the schema bounds them
            steps = stop_repetition(steps)
        while True:
            try:
                step = next(steps)
            except StopIteration as stop:
                yield AnswerPiece("", reply.is_thought, count, elapsed_s, stop.value)
                return
            count, elapsed_s = count + 1, step.elapsed_s
            if not reply.add(step.token_id):
                continue
            if reply.is_thought != was_thought:
                was_thought, shown = reply.is_thought, ""
            part = reply.thought if reply.is_thought else reply.answer[reply.answer_ahead :]
            text = self.engine.tokenizer.decode(part)
            new = ""
            if len(text) > len(shown) and not text.endswith(_UNFINISHED_CHARACTER):
                new, shown = text[len(shown) :], text
            yield AnswerPiece(new, reply.is_thought, count, elapsed_s)

    def ask_json(
        self,
        question: str,
        schema: Mapping[str, Any],
        sampling: Sampling = GREEDY,
        max_tokens: int = REASONING_TOKENS,
    ) -> object:
        """The model's answer, parsed from JSON that is valid under `schema`.

        The model may reason first, for half of `max_tokens`; the reasoning is dropped.

        Raises:
            ProtocolError: the schema cannot be enforced, or the question spells a control token.
            AnswerError: the JSON was not whole when `max_tokens` were spent.
        """
        constraint = self.engine.grammars.json_schema(schema, max_tokens // 2)
        pieces = list(self.ask(question + JSON_REQUEST, sampling, max_tokens, constraint))
        ending = pieces[-1].ending
        if ending in FINISH_REASON_LABELS:
            raise AnswerError(
                f"the JSON was not whole after {pieces[-1].tokens} tokens "
                f"({FINISH_REASON_LABELS[ending]}); raise --max-tokens or ask for less"
            )
        text = "".join(piece.text for piece in pieces if not piece.is_thought)
        try:
            answer: object = json.loads(text)
        except ValueError as error:
            raise AnswerError(f"the answer is not JSON ({error}); ask in another way") from None
        return answer


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
        ResourceError: the slices need more memory than there is.
    """
    recorder = SpanRecorder()

    def on_step(stage: str, done: int, total: int) -> None:
        recorder.step(f"{stage} {done}")
        on_progress(stage, done, total)

    with recorder.span("discover"):
        listing = find_series(scan, partial(on_progress, "discover"))
        reading = _only(plan_studies(listing, options.protocol, options.series_uid))
    if reading.protocol is None or reading.series is None:
        raise ScanError(" ".join(problem.detail for problem in reading.problems))
    indices = sample_slices(reading.series.shape[0], options.slices or reading.protocol.slices)
    engine.require_memory(len(indices), reading.series.shape[1:])
    with recorder.span("decode"):
        volume = read_volume(reading.series, indices, partial(on_step, "decode"))
    with recorder.span("render"):
        stack = render_stack(volume)
    instruction = reading.protocol.instruction
    reader = SlicePrefiller(engine, instruction, stack, options.scan_cache, recorder, on_step)
    prefix = reader.read()
    problems = (*reading.problems, *stack.problems)
    return Conversation(
        engine,
        prefix,
        reading.protocol,
        problems,
        len(stack.pixels),
        reader.recalled,
        recorder.spans,
    )


def _only(readings: Sequence[StudyTask]) -> StudyTask:
    if len(readings) == 1:
        return readings[0]
    uids = sorted({reading.series.series_uid for reading in readings if reading.series})
    raise ScanError(
        f"the scan holds {len(readings)} readings; choose one with --series and --protocol "
        f"({', '.join(uids)})"
    )
