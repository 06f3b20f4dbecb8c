"""Whether a study is looked at now, and what is doubted about it: a pure function of counts and times.

No signal says that a study is complete: an association may hold one image, a scanner reconstructs for
minutes, an archive counts while it receives. So a look is begun early, what comes later is looked at
too, and what is feared to be missing is said.
"""

from dataclasses import dataclass

import numpy as np

from edge_medgemma.runtime.clinic.arrivals.identity import Plane
from edge_medgemma.runtime.clinic.worklist.records import Doubt
from edge_medgemma.runtime.slicing.geometry import (
    MAX_POSITION_MM,
    SAME_POSITION_MM,
    is_orientation,
    missing_slices,
    stack_normal,
)

RULED = frozenset({Doubt.ABORTED, Doubt.STILL_ARRIVING, Doubt.GAP, Doubt.FEWER_THAN_ARCHIVE})
"""Doubts that are decided here; the others stand whatever comes."""

_FEWEST_SLICES = 5
"""Of which the steps tell what is usual."""

_STACK_SLICES = 10
"""So many without a gap are worth a look at once: more than that may come all the same."""

STACK_QUIET_S = 0.5
"""Such a stack whose association has ended waits so long behind its last image, not longer."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited; see `settings.Node`."""

    released_quiet_s: float
    quiet_s: float
    give_up_s: float


@dataclass(frozen=True, slots=True)
class ArrivalFacts:
    """What is known of one study's arrival; times by a clock that is never set."""

    is_pending: bool
    """Images came since the engine was last told to look."""
    first_new_s: float
    """When the first of those came,"""
    last_new_s: float
    """and the last."""
    open_associations: int
    """That brought new images of it."""
    ended_s: float
    """When the last of those ended; when the study was first heard of where there was none."""
    was_aborted: bool
    """One broke off, and what it lacked has not been sent again since."""
    has_gap: bool
    """Slices lie further apart than others of their stack."""
    is_stack: bool
    """There is a stack that is worth a look already, and no stack has a gap."""
    images: int
    """In the spool, without secondary captures, which archives count with their reports."""
    expected: int | None
    """Images that the archive has; None where it does not say."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done with a study."""

    look: bool
    """Tell the engine to look."""
    add: frozenset[Doubt] = frozenset()
    clear: frozenset[Doubt] = frozenset()


def decide(facts: ArrivalFacts, patience: Patience, now_s: float) -> Decision:
    """Whether the engine looks now, and the doubts; what is in neither set stays as it is."""
    look = facts.is_pending and _is_due(facts, patience, now_s)
    doubts = _doubts(facts)
    if facts.is_pending and not look:  # in the middle of a transfer a gap means nothing
        return Decision(look=False, add=doubts & {Doubt.ABORTED})
    return Decision(look=look, add=doubts, clear=RULED - doubts)


def has_gap(planes: list[Plane]) -> bool:
    """Whether slices are missing within a stack: a step wider than 1.5 of the usual ones.

    A missing first or last slice shows in no step.
    """
    stacks = _stacks(planes).values()
    return any(_stack_has_gap(stack) for stack in stacks if len(stack) >= _FEWEST_SLICES)


def is_stack(planes: list[Plane]) -> bool:
    """Whether enough slices lie in one stack to be looked at."""
    places = (len({one.position_mm for one in stack}) for stack in _stacks(planes).values())
    return max(places, default=0) >= _STACK_SLICES


def _stacks(planes: list[Plane]) -> dict[tuple[str, ...], list[Plane]]:
    stacks: dict[tuple[str, ...], list[Plane]] = {}
    for plane in planes:
        stacks.setdefault(plane.stack, []).append(plane)
    return stacks


def _is_due(facts: ArrivalFacts, patience: Patience, now_s: float) -> bool:
    quiet_s = now_s - facts.last_new_s
    if facts.open_associations == 0:
        if _agrees(facts):
            return True
        if facts.is_stack and not facts.was_aborted and quiet_s >= STACK_QUIET_S:
            return True
        if min(quiet_s, now_s - facts.ended_s) >= patience.released_quiet_s:
            return True
    return quiet_s >= patience.quiet_s or now_s - facts.first_new_s >= patience.give_up_s


def _agrees(facts: ArrivalFacts) -> bool:
    """Whether what the archive has is here: nothing else can show that nothing is missing.

    An archive with fewer is still receiving itself, and shows nothing.
    """
    return facts.images == facts.expected


def _doubts(facts: ArrivalFacts) -> frozenset[Doubt]:
    agrees = _agrees(facts)
    found = {
        Doubt.ABORTED: facts.was_aborted and not agrees,
        Doubt.STILL_ARRIVING: facts.open_associations > 0,
        Doubt.GAP: facts.has_gap and not agrees,
        Doubt.FEWER_THAN_ARCHIVE: facts.expected is not None and facts.images < facts.expected,
    }
    return frozenset(doubt for doubt, is_found in found.items() if is_found)


def _stack_has_gap(planes: list[Plane]) -> bool:
    orientation = np.array(planes[0].orientation)
    positions = np.array([plane.position_mm for plane in planes])
    positions = positions[(np.abs(positions) <= MAX_POSITION_MM).all(axis=1)]  # nan is not, either
    if not np.isfinite(orientation).all() or not is_orientation(orientation):
        return False
    along_mm = np.sort(positions @ stack_normal(orientation))
    distinct = along_mm[np.diff(along_mm, prepend=-np.inf) > SAME_POSITION_MM]
    return len(distinct) >= _FEWEST_SLICES and bool(missing_slices(distinct))
