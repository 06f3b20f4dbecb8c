"""Slices that lie parallel and agree in all that one volume has in common."""

from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.slicing.dicom.headers import SliceHeader
from edge_medgemma.runtime.slicing.geometry import SAME_DIRECTION_TOLERANCE
from edge_medgemma.runtime.slicing.splitting import (
    SAME_ECHO_TIME_MS,
    SAME_SPACING_RATIO,
    counts_slices,
    split_by_number,
    split_by_value,
)
from edge_medgemma.runtime.slicing.volume import Modality


def parallel_slices(images: list[SliceHeader]) -> list[list[SliceHeader]]:
    """Slices that lie parallel and agree in all that one volume has in common, within tolerances."""
    planes = []
    for alike in split_by_value(images, volume_kind):
        for spacing in _same_spacing(alike):
            for echo in split_by_number(
                spacing, lambda header: header.echo_time_ms, lambda _: SAME_ECHO_TIME_MS
            ):
                for frame in _same_frame_of_reference(echo):
                    planes.extend(_same_direction(frame))
    return planes


def volume_kind(header: SliceHeader) -> Hashable:
    """Key that all slices of a volume share."""
    if header.modality in (Modality.CR, Modality.DX):
        return header.source.sop_instance_uid, header.source.frame
    return (
        header.modality,
        header.rows,
        header.columns,
        header.position_mm is None or header.orientation is None,
        header.contrast,
    )


def _same_spacing(headers: list[SliceHeader]) -> list[list[SliceHeader]]:
    def relative(row_mm: float) -> float:
        return SAME_SPACING_RATIO * row_mm

    return [
        part
        for rows in split_by_number(headers, lambda one: _spacing(one, 0), relative)
        for part in split_by_number(rows, lambda one: _spacing(one, 1), relative)
    ]


def _spacing(header: SliceHeader, axis: int) -> float | None:
    return header.pixel_spacing_mm[axis] if header.pixel_spacing_mm else None


def _same_frame_of_reference(headers: list[SliceHeader]) -> list[list[SliceHeader]]:
    """Split by frame of reference, unless it changes from slice to slice and so says nothing."""
    parts = split_by_value(headers, lambda header: header.frame_of_reference)
    return [headers] if counts_slices(parts) else parts


def has_geometry(plane: list[SliceHeader]) -> bool:
    return plane[0].position_mm is not None and plane[0].orientation is not None


def _same_direction(headers: list[SliceHeader]) -> list[list[SliceHeader]]:
    """Split by image orientation, within `SAME_DIRECTION_TOLERANCE`."""
    if not has_geometry(headers):
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
