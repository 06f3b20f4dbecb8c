"""Free questions about a scan that is prefilled once: `ask`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edge_medgemma.runtime.domain import read_domain
from edge_medgemma.runtime.errors import AnswerError, ScanError
from edge_medgemma.runtime.generation.answer_pieces import AnswerPiece, answer_pieces
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.grammar import Constraint
from edge_medgemma.runtime.generation.outputs import FinishReason
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.sampling import Sampling
from edge_medgemma.runtime.slicing.choose import choose_series
from edge_medgemma.runtime.slicing.scan import find_series
from edge_medgemma.runtime.slicing.volume import Problem
from edge_medgemma.runtime.tracing.spans import Span, total_s
from edge_medgemma.runtime.triage.coverage import sampling_problems
from edge_medgemma.runtime.triage.cpu_fallback import DEVICE_FAILED, with_cpu_fallback
from edge_medgemma.runtime.triage.options import DEFAULT_OPTIONS, TriageOptions
from edge_medgemma.runtime.triage.pipeline import (
    StudyContext,
    compare,
    open_study,
    render,
    slice_prefiller,
)
from edge_medgemma.runtime.triage.prefill import FeatureStore
from edge_medgemma.runtime.triage.progress import Progress, StageTracker, no_progress
from edge_medgemma.runtime.triage.protocol import Protocol, general_protocol
from edge_medgemma.runtime.triage.report import CacheHits
from edge_medgemma.runtime.triage.room import require_room, slices_in_memory
from edge_medgemma.runtime.triage.scoring.grounds import scope_problem
from edge_medgemma.runtime.triage.scoring.questions import REASONING_TOKENS
from edge_medgemma.runtime.triage.worklist import StudyTask, plan_studies

GREEDY = Sampling()

LEAST_ANSWER_TOKENS = 256
"""Room for an answer that slices must leave: a paragraph, or the JSON of a protocol's findings."""

JSON_REQUEST = " Answer with one JSON object and nothing else."

FINISH_REASON_LABELS: Mapping[FinishReason | None, str] = {
    FinishReason.LENGTH: "stopped: --max-tokens are spent",
    FinishReason.REPETITION: "stopped: the model repeats itself",
    FinishReason.CONTEXT: "stopped: the engine reads no more tokens; use fewer --slices",
}


@dataclass(frozen=True, slots=True)
class ChatSession:
    """Prefilled slices of a scan; every question starts from them anew."""

    engine: Engine
    prefix: Prefix
    protocol: Protocol
    """Its instruction opens the prompt."""
    problems: tuple[Problem, ...]
    """Everything known to be wrong with the slices."""
    slices: int
    cache_hits: CacheHits
    """Work that the scan cache spared."""
    spans: tuple[Span, ...]
    """Stages up to prefill."""

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
        engine = self.engine
        ids = engine.prompt.question(question)
        yield from answer_pieces(
            self.prefix,
            ids,
            engine.tokenizer,
            engine.manifest.tokens,
            sampling,
            max_tokens,
            constraint,
        )

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
    question_tokens: int = 0,
) -> ChatSession:
    """Prefill one series of a scan; its protocol gives the instruction and the number of slices.

    A free question needs no protocol: where none fits, a general instruction opens the prompt.
    Slices that leave no room for `question_tokens` and a short answer are refused.

    Raises:
        ScanError: nothing in the scan can be read, its values cannot be shown to the model, it is outside the scope or the domain of a demo engine, or it holds several
            studies and none was chosen.
        ResourceError: the slices need more memory than there is.
        EngineError: the slices are more tokens than the engine has positions for.
    """
    tracker = StageTracker(on_progress)
    with tracker.stage("discover"):
        listing = find_series(scan, partial(on_progress, "discover"), options.modality)
        scope = engine.manifest.scope
        task = _only(plan_studies(listing, options.protocol, options.series_uid, scope))
        if task.protocol is None and scope is None:
            task = _without_protocol(task)
    if task.protocol is None or task.series is None:
        raise ScanError(" ".join(problem.detail for problem in task.problems))
    outside = scope_problem(scope, task.protocol, task.series)
    if outside is not None:
        raise RefusedScanError(outside)
    domain = read_domain(engine.directory, engine.manifest)
    held = None if options.slices else slices_in_memory(engine, task.protocol, task.series)
    context = StudyContext(
        engine, task.protocol, task.series, options, tracker, domain, memory_slices=held
    )
    problems = list(task.problems)
    return with_cpu_fallback(
        engine,
        lambda: _open_session(context, problems, question_tokens),
        lambda: problems.append(DEVICE_FAILED),
    )


def _without_protocol(task: StudyTask) -> StudyTask:
    """The task with the general protocol of its best series."""
    modalities = sorted({series.modality for series in task.other_series})
    series, reason = choose_series(task.other_series, modalities, images=4)
    if series is None:
        return task
    protocol = general_protocol(series.modality)
    return replace(task, protocol=protocol, series=series, series_reason=reason, problems=())


def _open_session(
    context: StudyContext, problems: Sequence[Problem], question_tokens: int
) -> ChatSession:
    """The stages of the pipeline up to prefill, over all requested slices."""
    require_room(context, len(context.requested_indices), question_tokens + LEAST_ANSWER_TOKENS)
    study = render(context, open_study(context, problems))
    shown = study.stack
    sampling = sampling_problems(context.protocol, context.series, shown.slice_indices)
    prefiller, features = slice_prefiller(context, shown), FeatureStore()
    encoded = prefiller.encode(features)
    grounds = compare(context, prefiller, features)
    doubts = () if grounds.problem is None else (grounds.problem,)
    if grounds.problem is not None and not grounds.allows_findings:
        raise RefusedScanError(grounds.problem)
    prefilled = prefiller.prefill(features, encoded)
    return ChatSession(
        engine=context.engine,
        prefix=prefilled.prefix,
        protocol=context.protocol,
        problems=tuple(dict.fromkeys((*study.problems, *sampling, *doubts))),
        slices=len(shown.pixels),
        cache_hits=prefilled.cache_hits,
        spans=context.tracker.spans,
    )


class RefusedScanError(ScanError):
    """A scan of which the engine's answers would mean nothing."""

    def __init__(self, problem: Problem) -> None:
        """For this reason."""
        super().__init__(
            f"{problem.detail} No question about this scan is answered; name another engine with "
            "--engine."
        )
        self.problem = problem


def _only(tasks: Sequence[StudyTask]) -> StudyTask:
    if len(tasks) == 1:
        return tasks[0]
    uids = sorted({task.series.series_uid for task in tasks if task.series})
    raise ScanError(
        f"the scan holds {len(tasks)} studies or protocols; choose with --series and --protocol "
        f"({', '.join(uids)})"
    )
