"""All cases of an evaluation by one engine, here or on a cluster, each kept as soon as it is done."""

import contextlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_medgemma import __version__
from edge_medgemma.calibration.evaluation.assessment import Assessment, assess
from edge_medgemma.calibration.evaluation.cases import Case, EvaluationPlan
from edge_medgemma.calibration.evaluation.ray_workers import WorkerSetup, assess_on_cluster
from edge_medgemma.calibration.evaluation.results import (
    ResultsFile,
    RunIdentity,
    StudyResult,
    open_results,
)
from edge_medgemma.runtime.backends.select import Providers
from edge_medgemma.runtime.commands.progress import OnStage
from edge_medgemma.runtime.domain import read_domain
from edge_medgemma.runtime.errors import EvaluationError
from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.manifest import Manifest, file_sha256, load_manifest
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.scoring.operating_points import THRESHOLDS_NAME

RESULTS_NAME = "results.jsonl"


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """An engine and what runs it."""

    directory: Path
    providers: Providers
    threads: int | None
    cluster: str | None = None
    """Address of a Ray cluster whose nodes run it; None runs it in this process."""


def run_cases(
    choice: EngineChoice,
    plan: EvaluationPlan,
    options: TriageOptions,
    path: Path,
    on_progress: OnStage,
) -> Mapping[str, StudyResult]:
    """Triage every case of the plan that has no result yet.

    Args:
        choice: the engine.
        plan: its cases.
        options: of triage.
        path: of the results; the folder also gets the pictures.
        on_progress: called with a label, the cases done and the cases in all.

    Returns:
        Results by key of the case.

    Raises:
        EvaluationError: the results are of another run, or the engine was changed meanwhile.
        EngineError, ResourceError: as `triage_scan`; what is done stays done.
    """
    manifest = load_manifest(choice.directory)
    with open_results(path, run_identity(choice.directory, manifest, plan, options)) as results:
        cases = plan.cases
        left = [case for case in cases if case.key not in results.done]
        if left:
            _run(choice, manifest, left, options, results, len(cases), on_progress)
        return results.done


def run_identity(
    directory: Path, manifest: Manifest, plan: EvaluationPlan, options: TriageOptions
) -> RunIdentity:
    """All that results depend on beside the scans."""
    return RunIdentity(
        format=1,
        engine_sha256=manifest.sha256,
        protocol="auto" if options.protocol is None else options.protocol.name,
        protocol_sha256s={one.name: one.sha256 for one in plan.protocols},
        effort=options.effort,
        slices=options.slices,
        program_version=__version__,
        thresholds_sha256=_thresholds_sha256(directory, options),
    )


def _thresholds_sha256(directory: Path, options: TriageOptions) -> str:
    """Of the file that triage would read; empty where there is none."""
    path = options.thresholds or directory / THRESHOLDS_NAME
    return file_sha256(path) if path.is_file() else ""


def keep(results: ResultsFile, assessment: Assessment) -> None:
    """Write the pictures, then the result that names them.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    for name, content in assessment.pictures.items():
        write_atomically(results.path.parent / name, content)
    results.append(assessment.result)


def check_unchanged(directory: Path, manifest: Manifest) -> None:
    """Refuse to go on with an engine that was replaced.

    Raises:
        EvaluationError: its manifest is another than at the start.
    """
    if load_manifest(directory).sha256 != manifest.sha256:
        raise EvaluationError(
            f"the engine in '{directory}' was changed during the evaluation; what was done with the old "
            "one is kept: put it back, or name another folder with --out"
        )


def _run(
    choice: EngineChoice,
    manifest: Manifest,
    left: list[Case],
    options: TriageOptions,
    results: ResultsFile,
    total: int,
    on_progress: OnStage,
) -> None:
    done = total - len(left)
    on_progress("triaging studies", done, total)
    assessments = _assessments(choice, manifest, left, options)
    with contextlib.closing(assessments):
        for assessment in assessments:
            check_unchanged(choice.directory, manifest)
            keep(results, assessment)
            done += 1
            on_progress("triaging studies", done, total)


def _assessments(
    choice: EngineChoice, manifest: Manifest, cases: list[Case], options: TriageOptions
) -> Generator[Assessment]:
    """Of every case, as they come."""
    if choice.cluster is not None:
        setup = WorkerSetup(
            choice.directory.resolve(), manifest.sha256, choice.providers, options, choice.threads
        )
        yield from assess_on_cluster(choice.cluster, cases, setup)
        return
    with Engine.open(
        choice.directory, threads=choice.threads, providers=choice.providers
    ) as engine:
        domain = read_domain(engine.directory, engine.manifest)
        for case in cases:
            yield assess(engine, case, options, domain)
