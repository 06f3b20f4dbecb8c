"""What is evaluated: the studies of a scan folder, their protocols and their labels."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from edge_medgemma.calibration.evaluation.datasets.registry import DatasetLayout
from edge_medgemma.calibration.evaluation.matching import Match, match_studies, study_names
from edge_medgemma.calibration.evaluation.records import LabelRow, Labels
from edge_medgemma.runtime.errors import EvaluationError
from edge_medgemma.runtime.manifest import Scope
from edge_medgemma.runtime.slicing.volume import ScanListing, Series
from edge_medgemma.runtime.triage.protocol import Protocol, load_protocol
from edge_medgemma.runtime.triage.worklist import StudyTask, plan_studies


@dataclass(frozen=True, slots=True)
class Case:
    """One protocol to be applied to one study."""

    key: str
    """Hash of the study's and the series' UIDs and the protocol's name: the same in every run."""
    task: StudyTask
    present: frozenset[str]
    """Codes of the findings that the labels say are there."""
    absent: frozenset[str]


@dataclass(frozen=True, slots=True)
class LabelledStudy:
    """One study of the scan folder."""

    name: str
    """Key of its label row, or `unlabelled N` by place in the folder."""
    row: LabelRow | None
    cases: tuple[Case, ...]

    @property
    def study_uid(self) -> str:
        """Empty for NIfTI."""
        return self.cases[0].task.study_uid


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """All that is to be done, and how scans and labels fit together."""

    studies: tuple[LabelledStudy, ...]
    """In the order of the worklist."""
    labels: Labels
    match: Match
    files_skipped: Mapping[str, int]
    codes: tuple[str, ...]
    """Labelled findings that a protocol of the plan asks for, in the order of the labels."""

    @property
    def cases(self) -> tuple[Case, ...]:
        """In the order of the studies."""
        return tuple(case for study in self.studies for case in study.cases)

    @property
    def scans_sha256(self) -> str:
        """Hash of the keys of all cases, sorted; no pixel is in it."""
        keys = sorted(case.key for case in self.cases)
        return hashlib.sha256("\n".join(keys).encode()).hexdigest()

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """Those of the cases, by name."""
        found = {
            case.task.protocol.name: case.task.protocol for case in self.cases if case.task.protocol
        }
        return tuple(found[name] for name in sorted(found))


def plan_evaluation(
    listing: ScanListing,
    folder: Path,
    labels: Labels,
    layout: DatasetLayout,
    scope: Scope | None,
    protocol: Protocol | None = None,
) -> EvaluationPlan:
    """Choose the protocols of the studies and match them with their labels.

    Args:
        listing: the series of the scans.
        folder: in which they were found.
        labels: read whole.
        layout: of the dataset.
        scope: of the engine.
        protocol: applied to every study; None takes those that fit each.

    Raises:
        ScanError: no label fits any study.
        EvaluationError: no protocol of any study asks for a finding that is labelled.
    """
    tasks = plan_studies(listing, protocol, None, scope)
    tasks = tuple(one for task in tasks for one in _with_layout_protocol(task, layout, scope))
    groups: dict[str, list[StudyTask]] = {}
    for task in tasks:
        groups.setdefault(task.study_name, []).append(task)
    match = match_studies(
        (study_names(group[0], folder) for group in groups.values()), labels, layout
    )
    studies = tuple(
        _labelled_study(place, group, match.pairs.get(place))
        for place, group in enumerate(groups.values())
    )
    asked = {f.code for task in tasks if task.protocol for f in task.protocol.findings}
    codes = tuple(code for code in labels.codes if code in asked)
    if not codes:
        raise EvaluationError(_nothing_asked(labels, tasks))
    if not labels.rows:
        labels = replace(labels, codes=codes)  # nobody labelled what is not asked
    skipped = Counter(file.reason for file in listing.skipped)
    return EvaluationPlan(studies, labels, match, dict(sorted(skipped.items())), codes)


def _with_layout_protocol(
    task: StudyTask, layout: DatasetLayout, scope: Scope | None
) -> Sequence[StudyTask]:
    """The task; of a study that does not say its body part, with the protocol that the dataset is for."""
    is_unknown = any(problem.name == "body_part_unknown" for problem in task.problems)
    if not (layout.protocol and is_unknown):
        return (task,)
    protocol = load_protocol(layout.protocol)
    own = load_protocol(scope.protocol) if scope else None
    if (
        own
        and set(own.modalities) & set(protocol.modalities)
        and own.body_parts == protocol.body_parts
    ):
        protocol = own
    planned = plan_studies(ScanListing(task.other_series, ()), protocol)
    return tuple(replace(one, study_name=task.study_name) for one in planned)


def _labelled_study(place: int, tasks: Sequence[StudyTask], row: LabelRow | None) -> LabelledStudy:
    cases = tuple(case_of(task, {} if row is None else row.findings) for task in tasks)
    return LabelledStudy(row.key if row else f"unlabelled {place + 1}", row, cases)


def case_of(task: StudyTask, findings: Mapping[str, bool | None] = MappingProxyType({})) -> Case:
    """A task, and what the labels say of its findings."""
    present = frozenset(code for code, value in findings.items() if value is True)
    absent = frozenset(code for code, value in findings.items() if value is False)
    return Case(_key(task), task, present, absent)


def _series(task: StudyTask) -> Series:
    return task.series or task.other_series[0]


def _key(task: StudyTask) -> str:
    series = _series(task)
    name = task.protocol.name if task.protocol else ""
    identity = "\n".join((task.study_uid, series.series_uid, str(series.person), name))
    return hashlib.sha256(identity.encode()).hexdigest()[:24]


def _nothing_asked(labels: Labels, tasks: Sequence[StudyTask]) -> str:
    labelled = ", ".join(labels.codes)
    names = sorted({task.protocol.name for task in tasks if task.protocol})
    if not names:
        reasons = Counter(p.name for task in tasks for p in task.problems).most_common(1)
        reason = reasons[0][0] if reasons else "no_protocol"
        return (
            f"no protocol fits any of the {len({t.study_name for t in tasks})} studies ({reason}); name "
            "one with --protocol"
        )
    return (
        f"the labels speak of {labelled}, and no protocol of these studies ({', '.join(names)}) asks for "
        "any of them; name another with --protocol"
    )
