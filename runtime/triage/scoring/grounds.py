"""Whether an engine has grounds for what it says of a study; what it has none for is not reported.

Three reasons, each with a stable name: its weights are random, the study is outside its scope, or
the slices are unlike those that it was calibrated on. A flag of an engine that was made for patients
outlives the last, because doubt must not lower a flag; one of a demo engine is known to mean nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from edge_medgemma.runtime.domain import Domain, Features, StudyDistance
from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.manifest import Manifest, Scope
from edge_medgemma.runtime.slicing.volume import BodyPart, Problem, Series
from edge_medgemma.runtime.triage.protocol import Finding, Protocol
from edge_medgemma.runtime.triage.report import FindingResult, FindingStatus

RANDOM_WEIGHTS = Problem(
    "random_weights", "The engine's weights are random: nothing it says means anything."
)

FLAG_OUTSIDE_DOMAIN = "flag of an engine outside what it was calibrated on"

NEVER_COMPARED = (
    "This engine does not say what it was calibrated on, so it was not measured whether the scan is "
    "like that."
)
NO_SUCH_SCANS = (
    "This engine was calibrated on no such scans, or too few, so it was not measured whether this one "
    "is like them."
)


@dataclass(frozen=True, slots=True)
class Grounds:
    """What the distance from the calibration allows to be said of a study."""

    distance: StudyDistance | None
    """None where it could not be measured."""
    problem: Problem | None
    """Why not everything may be said."""
    allows_findings: bool
    """Whether the engine is to be asked at all."""

    @property
    def allows_probabilities(self) -> bool:
        """Whether a percentage that was fitted on other scans holds for this one."""
        return self.problem is None

    def limit(self, results: Iterable[FindingResult]) -> tuple[FindingResult, ...]:
        """The results without the percentages, and with the doubt, that these grounds demand."""
        if self.allows_probabilities:
            return tuple(results)
        is_outside = self.distance is not None
        return tuple(
            replace(
                one,
                probability=None,
                reason=FLAG_OUTSIDE_DOMAIN
                if is_outside and one.status is FindingStatus.FLAGGED
                else one.reason,
            )
            for one in results
        )


def domain_grounds(
    manifest: Manifest,
    domain: Domain | None,
    protocol: Protocol,
    series: Series,
    pool: Callable[[], Features],
) -> Grounds:
    """Grounds of an engine for a study, by the distance of its slices.

    Args:
        manifest: of the engine.
        domain: what it was calibrated on; None where it does not say.
        protocol: knows the body part where the series does not.
        series: the slices are of it.
        pool: gives the mean of the image tokens of each slice, [N, hidden].
    """
    if manifest.has_random_weights:
        return Grounds(None, None, allows_findings=True)
    is_demonstration = manifest.scope is not None and manifest.scope.is_demonstration
    part = None if domain is None else domain.part(series.modality, series.body_part)
    if part is None and domain is not None and series.body_part is BodyPart.UNKNOWN:
        part = domain.part(series.modality, protocol.body_parts[0])
    if part is None:
        detail = NEVER_COMPARED if domain is None else NO_SUCH_SCANS
        problem = Problem("domain_not_measured", detail)
        return Grounds(None, problem, allows_findings=not is_demonstration)
    distance = part.measure(pool())
    if not distance.is_unlike:
        return Grounds(distance, None, allows_findings=True)
    detail = (
        f"Unlike anything this engine was calibrated on: {distance.ratio:.1f} times the distance "
        f"within which 99 % of its {distance.num_studies} calibration studies lie."
    )
    problem = Problem("unlike_calibration", detail)
    return Grounds(distance, problem, allows_findings=not is_demonstration)


def scope_problem(scope: Scope | None, protocol: Protocol, series: Series) -> Problem | None:
    """Why a study is outside the scope of an engine; None where it is inside.

    A series that does not state its body part counts as the protocol's, which a human named.
    """
    if scope is None:
        return None
    body_parts: Sequence[BodyPart] = (series.body_part,)
    if series.body_part is BodyPart.UNKNOWN:
        body_parts = protocol.body_parts
    if series.modality in scope.modalities and set(body_parts) <= set(scope.body_parts):
        return None
    return Problem("outside_scope", f"This engine was made for {scope_words(scope)} alone.")


def engine_notice(manifest: Manifest) -> str:
    """What an engine says about itself with every result; empty for most."""
    if manifest.has_random_weights:
        return RANDOM_WEIGHTS.detail
    return manifest.scope.notice if manifest.scope else ""


def check_real_engine(manifest: Manifest) -> None:
    """Refuse an engine that knows nothing of patients.

    Raises:
        EngineError: a demo engine, or one of random weights.
    """
    is_demonstration = manifest.scope is not None and manifest.scope.is_demonstration
    if is_demonstration or manifest.has_random_weights:
        kind = "the demo engine" if is_demonstration else "an engine of random weights"
        raise EngineError(
            f"'{manifest.source.name}' is {kind} and knows nothing of patients; name an engine that was "
            "exported from a MedGemma checkpoint with --engine"
        )


def scope_words(scope: Scope) -> str:
    """`CT of the head`."""
    return f"{' or '.join(scope.modalities)} of the {' or '.join(scope.body_parts)}"


def unassessed(findings: Iterable[Finding], reason: str) -> tuple[FindingResult, ...]:
    """Results of findings that the engine was not asked about."""
    return tuple(
        FindingResult(
            code=finding.code,
            title=finding.title,
            question=finding.question,
            urgency=finding.urgency,
            status=FindingStatus.NOT_ASSESSED,
            reason=reason,
            log_odds=None,
            baseline_log_odds=None,
            score=None,
            probability=None,
            threshold=finding.threshold,
            standard_code=finding.standard_code,
            key_slices=(),
        )
        for finding in findings
    )
