"""Slices of many files sorted into stacks that are each one volume.

A series instance UID does not identify a volume: scouts, echoes, phases and reformats share it.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from edge_medgemma.runtime.slicing.dicom.headers import REPEAT_NAMES, SliceHeader
from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError, open_regular
from edge_medgemma.runtime.slicing.geometry import SAME_POSITION_MM, stack_normal
from edge_medgemma.runtime.slicing.parallel import has_geometry, parallel_slices, volume_kind
from edge_medgemma.runtime.slicing.people import SHARED_IDENTIFIER, people_of
from edge_medgemma.runtime.slicing.splitting import (
    TIME_NAMES,
    counts_slices,
    projected_mm,
    separate,
    split_by_value,
)
from edge_medgemma.runtime.slicing.volume import Modality, Problem

LOCALIZER_MAX_SLICES = 5
"""A series of several planes with no more slices in any of them is a localizer without the tag."""

MIN_SINGLES = 3
"""So many one-slice series, alike in all but their UIDs, are one whose UID was made anew for every
slice; fewer may be single slices."""


MIN_REPEATED = 0.15
"""Share of positions with several images, below which these are the overlap of two blocks of one
scan, or repeated slices; two stacks share more."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Slices of one volume, no position twice, in spatial order where they have positions."""

    slices: tuple[SliceHeader, ...]
    problems: tuple[Problem, ...]
    person: int = 0
    """Number of the person within the scan."""


Dropped = list[tuple[SliceHeader, str]]
"""Slices left out, each with its reason."""


def group_slices(headers: Iterable[SliceHeader]) -> tuple[list[Stack], Dropped]:
    """Sort slices into stacks. The result depends on their content, not on names or order."""
    dropped: Dropped = []
    ordered = sorted(headers, key=_content_order)
    unique, copies = _without_copies(ordered, dropped)
    stacks: list[Stack] = []
    for study, person, is_shared in people_of(unique):
        shared = [SHARED_IDENTIFIER] if is_shared else []
        for members, notes in _series(study):
            problems = (*shared, *notes, *_copy_problems(copies[members[0].series_uid]))
            stacks.extend(
                replace(stack, person=person)
                for stack in _stacks_of_series(members, problems, dropped)
            )
    return stacks, dropped


def _series(headers: list[SliceHeader]) -> list[tuple[list[SliceHeader], tuple[Problem, ...]]]:
    """Slices of one series each, with what was joined for it."""
    by_series = split_by_value(headers, lambda header: header.series_uid)
    whole = [(part, ()) for part in by_series if len(part) > 1]
    singles = [part[0] for part in by_series if len(part) == 1]
    for alike in split_by_value(singles, _single_kind):
        is_volume = alike[0].modality in (Modality.CT, Modality.MR)
        if is_volume and len(alike) >= MIN_SINGLES and _is_stack(alike):
            detail = (
                f"each of {len(alike)} slices has a series UID of its own; they are read as one"
            )
            whole.append((alike, (Problem("series_uid_per_slice", detail),)))  # type: ignore[arg-type]
        else:
            whole.extend(([header], ()) for header in alike)
    return whole  # type: ignore[return-value]


def _single_kind(header: SliceHeader) -> Hashable:
    direction = header.orientation and tuple(round(cosine, 2) for cosine in header.orientation)
    kernel = header.repeats[REPEAT_NAMES.index("kernels")]
    return (volume_kind(header), header.study_date, header.is_localizer, direction, kernel)


def _is_stack(headers: list[SliceHeader]) -> bool:
    """Whether slices have positions of their own and numbers that differ."""
    if any(header.position_mm is None or header.orientation is None for header in headers):
        return False
    positions = _group_positions(headers)
    return len(positions) == len({header.instance_number for header in headers}) == len(headers)


def _content_order(header: SliceHeader) -> tuple[str, str, int, str, int]:
    source = header.source
    return (
        header.study_uid,
        header.series_uid,
        header.instance_number,
        source.sop_instance_uid,
        source.frame,
    )


def _without_copies(
    headers: list[SliceHeader], dropped: Dropped
) -> tuple[list[SliceHeader], dict[str, int]]:
    """Drop files that are byte for byte another one; also how many per series."""
    copies: dict[str, int] = defaultdict(int)
    unique = []
    digest_of = cache(_digest)  # a file has a header for each of its frames
    objects = split_by_value(
        headers, lambda header: (header.source.sop_instance_uid, header.source.frame)
    )
    for same in objects:
        seen: set[bytes] = set()
        for header in same:
            if len(same) > 1:
                try:
                    digest = digest_of(header.source.path)
                except UnreadableFileError as error:
                    dropped.append((header, str(error)))
                    continue
                if digest in seen:
                    dropped.append((header, "duplicate: the same object as another file"))
                    copies[header.series_uid] += 1
                    continue
                seen.add(digest)
            unique.append(header)
    return unique, copies


def _digest(path: Path) -> bytes:
    with open_regular(path) as file:
        try:
            return hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise UnreadableFileError("cannot be read; copy the scan to another disk") from error


def _copy_problems(count: int) -> tuple[Problem, ...]:
    if not count:
        return ()
    detail = f"copies of slices in the folder: {count}; each slice is read once"
    return (Problem("duplicate_slices", detail),)


def _stacks_of_series(
    members: list[SliceHeader], problems: tuple[Problem, ...], dropped: Dropped
) -> list[Stack]:
    images = [header for header in members if not header.is_localizer]
    dropped.extend((header, "localizer (scout)") for header in members if header.is_localizer)
    planes = parallel_slices(images)
    if _is_untagged_localizer(planes):
        reason = "localizer: a few slices in several planes"
        dropped.extend((header, reason) for header in images)
        return []
    stacks: list[Stack] = []
    for plane in planes:
        placed, notes = _with_positions(plane)
        parts, name = separate(placed) if has_geometry(placed) else ([placed], "")
        told_apart = _told_apart(name, len(parts)) if name else ()
        for part in parts:
            known = (*problems, *notes, *told_apart)
            stacks.extend(_resolve_repeats(part, known, dropped))
    if len(stacks) > 1 and stacks[0].slices[0].modality in (Modality.CT, Modality.MR):
        mixed = Problem("mixed_series", f"one series UID holds {len(stacks)} different stacks")
        stacks = [replace(stack, problems=(*stack.problems, mixed)) for stack in stacks]
    return stacks


def _told_apart(name: str, count: int) -> tuple[Problem, ...]:
    return (
        Problem("series_split", f"{count} stacks of one series were told apart by their {name}"),
    )


def _with_positions(plane: list[SliceHeader]) -> tuple[list[SliceHeader], tuple[Problem, ...]]:
    """Slices placed by slice location where all have one position; what was assumed for a plane."""
    notes = list(dict.fromkeys(note for header in plane for note in header.notes))
    if len({header.frame_of_reference for header in plane}) > 1:
        detail = (
            "the frame of reference changes from slice to slice; the slices are read as one stack"
        )
        notes.append(Problem("frame_of_reference_varies", detail))
    locations = [header.slice_location_mm for header in plane]
    has_one_position = has_geometry(plane) and len(_group_positions(plane)) == 1
    is_placed = None not in locations and len(set(locations)) == len(plane) > 1
    if not has_one_position or not is_placed:
        return plane, tuple(notes)
    first = plane[0]
    normal = stack_normal(np.array(first.orientation))
    detail = "all slices give one position; they are placed by slice location"
    notes.append(Problem("positions_from_slice_location", detail))
    placed = [
        replace(
            header,
            position_mm=tuple(
                (np.array(first.position_mm) + normal * (header.slice_location_mm or 0.0)).tolist()
            ),
        )
        for header in plane
    ]
    return placed, tuple(notes)


def _is_untagged_localizer(planes: list[list[SliceHeader]]) -> bool:
    directions = {
        plane[0].orientation and tuple(round(cosine, 2) for cosine in plane[0].orientation)
        for plane in planes
    }
    return len(directions) > 1 and max(map(len, planes)) <= LOCALIZER_MAX_SLICES


def _resolve_repeats(
    plane: list[SliceHeader], problems: tuple[Problem, ...], dropped: Dropped
) -> list[Stack]:
    """Split slices that share positions by whatever tells them apart, or keep the first of each."""
    if plane[0].position_mm is None or plane[0].orientation is None:
        return [Stack(tuple(plane), problems)]
    positions = _group_positions(plane)
    if len(positions) == len(plane):
        return [Stack(_in_order(positions), problems)]
    repeated = sum(len(same) > 1 for same in positions)
    if len(positions) >= MIN_SINGLES and repeated < MIN_REPEATED * len(positions):
        return [_first_of_each(positions, problems, dropped)]
    for index, name in enumerate(REPEAT_NAMES):
        parts = split_by_value(plane, lambda header, index=index: header.repeats[index])  # type: ignore[misc]
        is_count = len(positions) > 1 and counts_slices(parts)
        is_repeated = any(len(_group_positions(part)) < len(part) for part in parts)
        if len(parts) == 1 or is_count or is_repeated:
            continue
        if plane[0].modality is Modality.MR and name in TIME_NAMES:
            positions = [
                sorted(same, key=lambda header, index=index: _number(header.repeats[index]))  # type: ignore[misc]
                for same in positions
            ]
            break
        return [Stack(_in_order(_group_positions(part)), problems) for part in parts]
    return [_first_of_each(positions, problems, dropped)]


def _first_of_each(
    positions: list[list[SliceHeader]], problems: tuple[Problem, ...], dropped: Dropped
) -> Stack:
    depths = {len(same) for same in positions}
    repeated = sum(len(same) - 1 for same in positions)
    is_one_object = len({header.source.path for same in positions for header in same}) == 1
    if len(depths) == 1 and (len(positions) > 1 or is_one_object):
        times = depths.pop()
        reason = "another time point of a slice that is read"
        problem = Problem("time_series", f"{times} images at each position; the first is read")
    else:
        reason = "another image at the position of a slice that is read"
        problem = Problem(
            "duplicate_slices",
            f"{repeated} slices share a position with another of different content; "
            "the first by instance number is read",
        )
    dropped.extend((header, reason) for same in positions for header in same[1:])
    return Stack(_in_order(positions), (*problems, problem))


def _number(value: str) -> float:
    """Sort key of a time; what is no number comes last."""
    try:
        return float(value)
    except ValueError:
        return math.inf


def _group_positions(plane: list[SliceHeader]) -> list[list[SliceHeader]]:
    """Slices by position along the normal, ascending; members keep their order."""
    projected = projected_mm(plane)
    groups: list[list[SliceHeader]] = []
    last = -np.inf
    for index in np.argsort(projected, kind="stable"):
        if projected[index] - last < SAME_POSITION_MM:
            groups[-1].append(plane[index])
        else:
            groups.append([plane[index]])
            last = projected[index]
    return [sorted(group, key=_content_order) for group in groups]


def _in_order(positions: list[list[SliceHeader]]) -> tuple[SliceHeader, ...]:
    return tuple(same[0] for same in positions)
