"""Worklist of a scan: the protocol and the series for each study."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.manifest import Scope
from edge_medgemma.runtime.slicing.choose import choose_series, series_of_key
from edge_medgemma.runtime.slicing.volume import BodyPart, Problem, ScanListing, Series
from edge_medgemma.runtime.triage.protocol import (
    Protocol,
    builtin_protocols,
    covers,
    load_protocol,
)


@dataclass(frozen=True, slots=True)
class StudyTask:
    """One protocol to be applied to one study; without a series it can only be reported."""

    study_name: str
    study_uid: str
    protocol: Protocol | None
    series: Series | None
    series_reason: str
    other_series: tuple[Series, ...]
    problems: tuple[Problem, ...]


def plan_studies(
    listing: ScanListing,
    protocol: Protocol | None = None,
    series_uid: str | None = None,
    scope: Scope | None = None,
) -> tuple[StudyTask, ...]:
    """At least one task for every study of a scan.

    Args:
        listing: the series of the scan.
        protocol: applied to every study; None takes every built-in protocol that is meant for the
            modality and body part of one of the study's series. Nothing is guessed: a study whose
            body part is unknown gets a task that says so.
        series_uid: only this series, of whatever study; a key as `inspect` prints it.
        scope: of the engine; its protocol takes the place of those for the same kind of study.

    Raises:
        ScanError: the scan has no series, or none of that key.
    """
    if not listing.series:
        raise ScanError(
            f"the scan holds no readable CT, MR or X-ray image (files skipped: "
            f"{len(listing.skipped)}); 'edge-medgemma inspect' says why"
        )
    series = list(listing.series)
    if series_uid is not None:
        series = series_of_key(listing.series, series_uid)
    if not series:
        raise ScanError(
            f"the scan has no series '{series_uid}'; 'edge-medgemma inspect' lists its series"
        )
    studies: dict[tuple[str, int], list[Series]] = {}
    for one in series:
        studies.setdefault((one.study_uid or one.series_uid, one.person), []).append(one)
    tasks: list[StudyTask] = []
    for number, members in enumerate(studies.values(), start=1):
        name = f"Study {number}"
        chosen = [protocol] if protocol else _protocols_for(members, scope)
        tasks += [_task(name, one, members, named=protocol is not None) for one in chosen]
        if not chosen:
            tasks.append(_without_protocol(name, members))
    return tuple(tasks)


def _protocols_for(series: Sequence[Series], scope: Scope | None) -> list[Protocol]:
    """Every automatic protocol that is meant for one of the series, or the scope's in its place."""
    own = None if scope is None else load_protocol(scope.protocol)
    chosen: list[Protocol] = []
    for protocol in filter(lambda one: one.is_automatic, builtin_protocols()):
        fitting = [one for one in series if covers(protocol, one)]
        is_replaced = own is not None and any(covers(own, one) for one in fitting)
        if fitting:
            chosen.append(own if own is not None and is_replaced else protocol)
    return list(dict.fromkeys(chosen))


def _task(name: str, protocol: Protocol, members: Sequence[Series], *, named: bool) -> StudyTask:
    fitting = [s for s in members if covers(protocol, s)]
    if named and not fitting:
        fitting = [s for s in members if s.modality in protocol.modalities]
    series, reason = choose_series(
        fitting, protocol.modalities, protocol.contrast_agent, protocol.slices
    )
    problems: list[Problem] = []
    if series is None:
        expected = " or ".join(protocol.modalities)
        reason = reason or f"no series of modality {expected}"
        problems.append(Problem("no_series", f"No {expected} series could be used: {reason}."))
    elif not covers(protocol, series):
        problems.append(_body_part_problem(series, protocol))
    taken = {source.sop_instance_uid for source in series.sources} if series else set()
    others = tuple(s for s in members if s.sources[0].sop_instance_uid not in taken or not s.views)
    others = tuple(s for s in others if s is not series)
    return StudyTask(name, members[0].study_uid, protocol, series, reason, others, tuple(problems))


def _body_part_problem(series: Series, protocol: Protocol) -> Problem:
    if series.body_part is BodyPart.UNKNOWN:
        return Problem(
            "body_part_not_stated",
            f"The scan does not state its body part; protocol {protocol.name} was asked for.",
        )
    return Problem(
        "body_part_conflict",
        f"The scan says body part {' and '.join(series.body_parts)}; protocol {protocol.name} was asked for.",
    )


def _without_protocol(name: str, members: Sequence[Series]) -> StudyTask:
    known = {modality for p in builtin_protocols() for modality in p.modalities}
    if any(s.modality in known and s.body_part is BodyPart.UNKNOWN for s in members):
        named = ", ".join(
            f"{p.title} (--protocol {p.name})"
            for p in builtin_protocols()
            if p.is_automatic and any(s.modality in p.modalities for s in members)
        )
        problem = Problem(
            "body_part_unknown",
            "The scan does not say which body part it shows. Look at the overview and choose: "
            f"{named}.",
        )
    else:
        kinds = sorted({f"{s.modality} {s.body_part}" for s in members})
        problem = Problem(
            "no_protocol",
            f"No built-in protocol is meant for {', '.join(kinds)}; name one with --protocol.",
        )
    return StudyTask(name, members[0].study_uid, None, None, "", tuple(members), (problem,))
