"""The way of one study, stage by stage; `triage` and `ask` share it.

    open             `open_study`, `render`: slices decoded, coverage checked, windows applied
    choose slices    `choose_slices`: those that one pass shows to the model
    encode           `SlicePrefiller.encode`: image features of every slice
    compare          `compare`: their distance from those that the engine was calibrated on
    blank baseline   `blank_baseline`: log-odds of the same questions about blank slices
    prefill          `SlicePrefiller.prefill`: instruction and slices into the KV cache
    score            `score`: log-odds of every finding against its threshold
    evidence         `evidence`: key slices of the flagged findings, and of those to be explained
    conclude         `conclude`: urgency (decided in `urgency.py`) and report

`ask` stops after prefill. Passes over more and more slices are a loop around these stages:
`refinement/`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.domain import Domain
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.slicing.sampling import sample_slices
from edge_medgemma.runtime.slicing.scan import read_volume
from edge_medgemma.runtime.slicing.volume import Problem, Series, SliceStack, Volume
from edge_medgemma.runtime.slicing.windows import PRESETS, render_stack
from edge_medgemma.runtime.store.number_cache import CachedNumbers
from edge_medgemma.runtime.store.places import Place
from edge_medgemma.runtime.triage.coverage import coverage_problems, sampling_problems
from edge_medgemma.runtime.triage.empty_slices import empty_slices
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.prefill import (
    Features,
    FeatureStore,
    SlicePrefiller,
    prefill_slices,
)
from edge_medgemma.runtime.triage.progress import StageTracker
from edge_medgemma.runtime.triage.protocol import Finding, Protocol
from edge_medgemma.runtime.triage.report import (
    NO_CACHE_HITS,
    CacheHits,
    Effort,
    FindingResult,
    FindingStatus,
    StudyReport,
)
from edge_medgemma.runtime.triage.report_builder import study_report
from edge_medgemma.runtime.triage.scoring.blank_baseline import blank_volume
from edge_medgemma.runtime.triage.scoring.evidence import with_evidence
from edge_medgemma.runtime.triage.scoring.findings import Answers, evaluate, result_problems
from edge_medgemma.runtime.triage.scoring.grounds import Grounds, domain_grounds, unassessed
from edge_medgemma.runtime.triage.scoring.operating_points import (
    FittingPoints,
    OperatingPoints,
    fitting_points,
)
from edge_medgemma.runtime.triage.scoring.questions import (
    ask_fast,
    ask_reasoned,
    assessed_findings,
)
from edge_medgemma.runtime.triage.worklist import StudyTask

UNLIKE_CALIBRATION = "the scan is not known to be like those that this engine was made for"
RANDOM_WEIGHTS_REASON = "the engine's weights are random"


@dataclass(frozen=True, slots=True)
class StudyContext:
    """The inputs that every stage of one study has in common."""

    engine: Engine
    protocol: Protocol
    series: Series
    options: TriageOptions
    tracker: StageTracker
    domain: Domain | None = None
    """What the engine was calibrated on."""
    points: OperatingPoints | None = None
    """Thresholds that were fitted to labelled scans; None where none were."""
    memory_slices: int | None = None
    """Most slices that memory held when the study was begun; None where it held all."""

    @property
    def slices(self) -> int:
        """Most slices shown, by the user or else the protocol, what the device was built for and memory."""
        if self.options.slices:
            return self.options.slices
        wanted = self.protocol.slices
        return min(wanted, self.engine.plan_slices or wanted, self.memory_slices or wanted)

    @property
    def requested_indices(self) -> NDArray[np.int64]:
        """Slice indices [N] of all that the protocol, or the user, wants shown."""
        return sample_slices(self.series.shape[0], self.slices)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings that this engine may be asked about."""
        return assessed_findings(self.protocol, self.engine.manifest)


@dataclass(frozen=True, slots=True)
class DecodedStudy:
    """Slices as values, before any intensity window."""

    volume: Volume
    problems: tuple[Problem, ...]
    """Everything known to be wrong with the study up to here."""

    @property
    def is_renderable(self) -> bool:
        """Whether intensity windows would show the right tissue."""
        return all(problem.name != "not_hounsfield" for problem in self.problems)


@dataclass(frozen=True, slots=True)
class RenderedStudy:
    """Slices as the pixels that the model is shown."""

    stack: SliceStack
    blank: SliceStack
    """One blank slice of the same geometry."""
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class PassResult:
    """The result of one pass over some slices."""

    shown: SliceStack
    findings: tuple[FindingResult, ...]
    problems: tuple[Problem, ...]
    """Raised by the choice of slices and by the answers."""
    cache_hits: CacheHits
    num_encoded: int
    """Slices that the vision tower was run on."""
    grounds: Grounds
    """What may be said of the study, by the slices shown."""

    @property
    def is_dense(self) -> bool:
        """Whether enough slices were shown to call a finding absent."""
        return all(problem.name != "insufficient_sampling" for problem in self.problems)


def run_pass(
    context: StudyContext, study: RenderedStudy, rows: Sequence[int], features: FeatureStore
) -> PassResult:
    """All stages from the choice of slices to the evidence.

    Args:
        context: of the study.
        study: opened.
        rows: which of its slices, 0-based and ascending.
        features: of earlier passes; completed, and emptied by the pass over all slices.
    """
    shown = choose_slices(study, rows)
    prefiller = slice_prefiller(context, shown)
    is_last = len(rows) == len(study.stack.slice_indices)
    encoded = prefiller.encode(features)
    grounds = compare(context, prefiller, features)
    if not grounds.allows_findings:
        return _without_answers(context, shown, grounds, prefiller.num_encoded)
    blank = partial(prefiller.encode_blank, study.blank, features)
    baseline = blank_baseline(context, len(rows), blank)
    prefilled = prefiller.prefill(features, encoded, keeps_features=not is_last)
    points = _points(context, context.slices if is_last else len(rows))
    answers, findings = score(context, prefilled.prefix, baseline, points)
    findings = grounds.limit(evidence(context, prefilled.prefix, shown, findings))
    reported = findings
    if context.engine.manifest.has_random_weights:  # asked all the same, to measure the device
        reported = unassessed(context.protocol.findings, RANDOM_WEIGHTS_REASON)
    return PassResult(
        shown=shown,
        findings=reported,
        problems=(
            *sampling_problems(context.protocol, context.series, shown.slice_indices),
            *answers.problems,
            *result_problems(findings),
            *([grounds.problem] if grounds.problem else []),
            *([points.problem] if points.problem else []),
        ),
        cache_hits=prefilled.cache_hits,
        num_encoded=prefiller.num_encoded,
        grounds=grounds,
    )


def _points(context: StudyContext, slices: int) -> FittingPoints:
    """The operating points that hold for a pass over so many slices."""
    return fitting_points(
        context.points,
        context.engine.manifest.sha256,
        context.protocol,
        context.findings,
        context.options.effort,
        slices,
    )


def _without_answers(
    context: StudyContext, shown: SliceStack, grounds: Grounds, num_encoded: int
) -> PassResult:
    """The result of a pass after which the engine is not asked."""
    findings = unassessed(context.protocol.findings, UNLIKE_CALIBRATION)
    problems = sampling_problems(context.protocol, context.series, shown.slice_indices)
    if grounds.distance is None:
        problems = (*problems, *result_problems(findings))
    if grounds.problem is not None:
        problems = (*problems, grounds.problem)
    return PassResult(shown, findings, problems, NO_CACHE_HITS, num_encoded, grounds)


def open_study(context: StudyContext, problems: Sequence[Problem]) -> DecodedStudy:
    """Decode all requested slices and check that enough of the body part is in them.

    Args:
        context: of the study.
        problems: known before.
    """
    requested = context.requested_indices
    with context.tracker.stage("decode"):
        volume = read_volume(context.series, requested, context.tracker.steps_of("decode"))
    coverage = coverage_problems(context.protocol, volume, requested)
    return DecodedStudy(volume, (*problems, *volume.problems, *coverage))


def render(context: StudyContext, decoded: DecodedStudy) -> RenderedStudy:
    """Apply the intensity windows, to the slices and to a blank one.

    Raises:
        ScanError: the values are not what the windows are made for.
    """
    with context.tracker.stage("render"):
        stack = render_stack(decoded.volume)
        blank = render_stack(blank_volume(decoded.volume), stack.preset)
    found = (*stack.problems, *empty_slices(stack))
    new = tuple(p for p in found if p not in decoded.problems)
    return RenderedStudy(stack, blank, (*decoded.problems, *new))


def choose_slices(study: RenderedStudy, rows: Sequence[int]) -> SliceStack:
    """The slices of one pass."""
    stack = study.stack
    if len(rows) == len(stack.pixels):
        return stack
    return replace(
        stack,
        pixels=stack.pixels[rows],
        slice_indices=stack.slice_indices[rows],
        positions_mm=stack.positions_mm[rows],
    )


def slice_prefiller(context: StudyContext, shown: SliceStack) -> SlicePrefiller:
    """The encoder and prefiller of the slices of one pass."""
    instruction, cache = context.protocol.instruction, context.options.scan_cache
    return SlicePrefiller(context.engine, instruction, shown, cache, context.tracker)


def compare(context: StudyContext, prefiller: SlicePrefiller, features: FeatureStore) -> Grounds:
    """What may be said of a study, by the distance of its slices from the calibration's."""
    with context.tracker.stage("compare"):
        return domain_grounds(
            context.engine.manifest,
            context.domain,
            context.protocol,
            context.series,
            lambda: prefiller.pooled(features),
        )


def blank_baseline(
    context: StudyContext, slices: int, blank: Callable[[], Features]
) -> Mapping[str, float]:
    """Baseline log-odds by finding code for so many slices; empty where no baseline applies.

    Args:
        context: of the study.
        slices: number of slices shown.
        blank: gives the features of a blank slice, where the baseline is not cached.
    """
    cached = cached_baseline(context, slices)
    if cached is not None:
        return cached
    features = blank()
    with context.tracker.stage("control"):
        steps = context.tracker.steps_of("control")
        prefix = prefill_slices(
            context.engine,
            context.protocol.instruction,
            slices,
            repeat(features, slices),
            lambda _, done, total: steps(done, total),
        )
        log_odds = ask_fast(context.engine, prefix, context.findings).log_odds
    _baseline_cache(context, slices).write(log_odds)
    return log_odds


def cached_baseline(context: StudyContext, slices: int) -> Mapping[str, float] | None:
    """Like `blank_baseline`; None where it would have to be measured.

    No baseline applies after reasoning in words: a model reasons differently about nothing.
    """
    codes = [finding.code for finding in context.findings]
    if context.options.effort is Effort.REASONED or not codes:
        return {}
    return _baseline_cache(context, slices).read(codes)


def _baseline_cache(context: StudyContext, slices: int) -> CachedNumbers:
    """Baseline on disk: it depends on engine, what runs it, questions, preset and size, no scan."""
    series = context.series
    return CachedNumbers(
        context.options.baseline_folder or Place.BASELINES.folder,
        context.engine.manifest.sha256,
        context.engine.vision_identity,
        context.engine.decoder_identity,
        context.protocol.sha256,
        PRESETS[series.modality],
        str(slices),
        *map(str, series.shape[1:]),
    )


def score(
    context: StudyContext, prefix: Prefix, baseline: Mapping[str, float], points: FittingPoints
) -> tuple[Answers, tuple[FindingResult, ...]]:
    """The model's answers, and score and status of every finding of the protocol."""
    engine, tracker = context.engine, context.tracker
    with tracker.stage("score"):
        if context.options.effort is Effort.REASONED:
            answers = ask_reasoned(engine, prefix, context.findings, tracker.step)
        else:
            answers = ask_fast(engine, prefix, context.findings)
        return answers, evaluate(context.protocol, answers, baseline or None, points.by_finding)


def evidence(
    context: StudyContext, prefix: Prefix, shown: SliceStack, findings: Sequence[FindingResult]
) -> tuple[FindingResult, ...]:
    """The findings, with key slices of those that are flagged or that the options want explained."""
    explained = []
    with context.tracker.stage("evidence"):
        for done, finding in enumerate(findings, start=1):
            is_explained = finding.status is FindingStatus.FLAGGED or (
                finding.status is FindingStatus.NOT_FLAGGED
                and finding.code in context.options.explained
            )
            explained.append(
                with_evidence(context.engine, prefix, shown, finding) if is_explained else finding
            )
            context.tracker.step("evidence", done, len(findings))
    return tuple(explained)


def conclude(
    context: StudyContext, task: StudyTask, problems: Sequence[Problem], result: PassResult
) -> StudyReport:
    """Urgency and report of a study, from the findings of a pass and all problems."""
    distance = result.grounds.distance
    report = study_report(task, context.tracker, problems, result.shown, result.findings, distance)
    return replace(report, cache_hits=result.cache_hits)
