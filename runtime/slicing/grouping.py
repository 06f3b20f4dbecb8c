"""Slices of many files sorted into stacks that are each one volume.

A series instance UID does not identify a volume: scouts, echoes, phases and reformats share it.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.slicing.dicom.headers import REPEAT_NAMES, SliceHeader
from edge_medgemma.runtime.slicing.geometry import (
    SAME_DIRECTION_TOLERANCE,
    SAME_POSITION_MM,
    stack_normal,
)
from edge_medgemma.runtime.slicing.volume import Modality, Problem

LOCALIZER_MAX_SLICES = 5
"""A series of several planes with no more slices in any of them is a localizer without the tag."""

TIME_NAMES = ("time points", "acquisitions", "phases")
"""Those of `REPEAT_NAMES` that in MR are one volume at several times, not several volumes."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Slices of one volume, no position twice, in spatial order where they have positions."""

    slices: tuple[SliceHeader, ...]
    problems: tuple[Problem, ...]


Dropped = list[tuple[SliceHeader, str]]
"""Slices left out, each with its reason."""


def group_slices(headers: Iterable[SliceHeader]) -> tuple[list[Stack], Dropped]:
    """Sort slices into stacks. The result depends on their content, not on names or order."""
    dropped: Dropped = []
    ordered = sorted(headers, key=_content_order)
    unique, copies = _without_copies(ordered, dropped)
    by_series = _split(unique, lambda header: (header.study_uid, header.series_uid))
    stacks: list[Stack] = []
    for members in by_series:
        problems = _copy_problems(copies[members[0].series_uid])
        stacks.extend(_stacks_of_series(members, problems, dropped))
    return stacks, dropped


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
    objects = _split(headers, lambda header: (header.source.sop_instance_uid, header.source.frame))
    for same in objects:
        seen: set[bytes] = set()
        for header in same:
            if len(same) > 1:
                digest = digest_of(header.source.path)
                if digest in seen:
                    dropped.append((header, "duplicate: the same object as another file"))
                    copies[header.series_uid] += 1
                    continue
                seen.add(digest)
            unique.append(header)
    return unique, copies


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


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
    planes = [plane for alike in _split(images, _kind) for plane in _same_direction(alike)]
    if _is_untagged_localizer(planes):
        reason = "localizer: a few slices in several planes"
        dropped.extend((header, reason) for header in images)
        return []
    stacks: list[Stack] = []
    for plane in planes:
        stacks.extend(_resolve_repeats(plane, problems, dropped))
    if len(stacks) > 1 and stacks[0].slices[0].modality in (Modality.CT, Modality.MR):
        mixed = Problem("mixed_series", f"one series UID holds {len(stacks)} different stacks")
        stacks = [Stack(stack.slices, (*stack.problems, mixed)) for stack in stacks]
    return stacks


def _kind(header: SliceHeader) -> Hashable:
    """Key that all slices of a volume share."""
    spacing = header.pixel_spacing_mm
    if header.modality in (Modality.CR, Modality.DX):
        return header.source.sop_instance_uid, header.source.frame
    return (
        header.modality,
        header.frame_of_reference,
        header.rows,
        header.columns,
        spacing and (round(spacing[0], 3), round(spacing[1], 3)),
        header.position_mm is None or header.orientation is None,
        header.contrast,
    )


def _same_direction(headers: list[SliceHeader]) -> list[list[SliceHeader]]:
    """Split by image orientation, within `SAME_DIRECTION_TOLERANCE`."""
    if headers[0].orientation is None or headers[0].position_mm is None:
        return [headers]
    planes: list[tuple[NDArray[np.float64], list[SliceHeader]]] = []
    for header in headers:
        orientation = np.array(header.orientation)
        for known, members in planes:
            if np.abs(known - orientation).max() <= SAME_DIRECTION_TOLERANCE:
                members.append(header)
                break
        else:
            planes.append((orientation, [header]))
    return [members for _, members in planes]


def _is_untagged_localizer(planes: list[list[SliceHeader]]) -> bool:
    directions = {plane[0].orientation for plane in planes}
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
    for index, name in enumerate(REPEAT_NAMES):
        parts = _split(plane, lambda header, index=index: header.repeats[index])  # type: ignore[misc]
        if len(parts) == 1 or any(len(_group_positions(part)) < len(part) for part in parts):
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
    if len(depths) == 1 and len(positions) > 1:
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
    normal = stack_normal(np.array(plane[0].orientation))
    projected = np.array([header.position_mm for header in plane]) @ normal
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


def _split(
    headers: list[SliceHeader], key: Callable[[SliceHeader], Hashable]
) -> list[list[SliceHeader]]:
    """Partition by `key`, parts in the order of their first member."""
    parts: dict[Hashable, list[SliceHeader]] = defaultdict(list)
    for header in headers:
        parts[key(header)].append(header)
    return list(parts.values())
