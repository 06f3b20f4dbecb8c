"""Searched integers, kept beside the calibration: an export that was killed does not search twice."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.record import Calibration
from edge_medgemma.calibration.resume_store import load_group, save_group
from edge_medgemma.calibration.search import weight_search
from edge_medgemma.calibration.search.weight_search import Rounding, choose_importance, gptq
from edge_medgemma.export.graphs.weights import (
    BITS,
    WeightFormat,
    WeightFormatOf,
    pack_unsigned,
    quantize_blocks,
    unpack_unsigned,
)
from edge_medgemma.export.quantisation.folding import ScaleProblem
from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.store.keys import hashed_code, hashed_key, program_identity

Array = NDArray[np.float32]


def searched_scale(
    name: str,
    problem: Callable[[], ScaleProblem],
    weight_format: WeightFormat,
    calibration: Calibration,
) -> Array:
    """AWQ's scale [K] of a linear layer, from the folder beside the calibration or new."""
    path = (
        calibration.folder
        / f"searched.scale.{weight_format.kind}.{weight_format.block_size}.{name}.npz"
    )
    kept = _kept(path)
    if kept is not None:
        return kept["scale"]
    scale = choose_importance(*problem(), nearest_rounding(weight_format))
    save_group(path, {"scale": scale}, _identity())
    return scale


def searched_formats(
    plain: WeightFormatOf, calibration: Calibration, scales: dict[str, Array]
) -> WeightFormatOf:
    """Formats of decoder layers whose integers GPTQ chooses.

    Args:
        plain: to nearest
        calibration: of the checkpoint
        scales: [K] by linear layer, what the input was divided by
    """

    def format_of(name: str) -> WeightFormat:
        weight_format = plain(name)
        if not name.startswith("text."):
            return weight_format
        return replace(
            weight_format,
            quantizer=lambda values: _search(name, weight_format, values, calibration, scales),
        )

    return format_of


def nearest_rounding(weight_format: WeightFormat) -> Rounding:
    """Round-to-nearest on [K, N], as the search wants it."""

    def rounding(weight: Array) -> tuple[NDArray[np.int8], Array]:
        values = np.ascontiguousarray(weight.T)
        integers, block_scales = quantize_blocks(
            values, weight_format.kind, weight_format.block_size
        )
        return np.ascontiguousarray(integers.T), np.ascontiguousarray(block_scales.T)

    return rounding


def _search(
    name: str,
    weight_format: WeightFormat,
    values: Array,
    calibration: Calibration,
    scales: dict[str, Array],
) -> tuple[NDArray[np.int8], Array]:
    """Integers [N, K] and block scales [N, K / block], from the folder beside the calibration or new."""
    scale = scales.get(name, np.ones(values.shape[1], np.float32))
    path = (
        calibration.folder / f"searched.{weight_format.kind}.{weight_format.block_size}.{name}.npz"
    )
    kept = _kept(path)
    if kept is not None and np.array_equal(kept["scale"], scale):
        return unpack_unsigned(kept["integers"], weight_format.kind), kept["block_scales"]
    integers, column_scales = gptq(
        calibration.gram(name).divided(scale),
        np.ascontiguousarray(values.T),
        nearest_rounding(weight_format),
        2 ** (BITS[weight_format.kind] - 1) - 1,
        weight_format.block_size,
    )
    rows = np.ascontiguousarray(integers.T)
    block_scales = np.ascontiguousarray(column_scales.T)
    packed = pack_unsigned(rows, weight_format.kind)
    searched: dict[str, NDArray[Any]] = {
        "integers": packed,
        "block_scales": block_scales,
        "scale": scale,
    }
    save_group(path, searched, _identity())
    return rows, block_scales


def _kept(path: Path) -> dict[str, NDArray[Any]] | None:
    """What this very program searched before; None where that is absent, damaged or another's."""
    if not path.is_file():
        return None
    try:
        arrays, note = load_group(path)
    except EngineError:
        return None
    return arrays if note == _identity() else None


@cache
def _identity() -> dict[str, str]:
    """The code that chooses scales and integers."""
    folders = (Path(__file__).parent, Path(weight_search.__file__).parent)
    return {"program": program_identity(), "code": hashed_key(*map(hashed_code, folders))}
