"""Searched integers, kept beside the calibration: an export that was killed does not search twice."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.record import Calibration
from edge_medgemma.calibration.resume_store import load_group, save_group
from edge_medgemma.calibration.search.weight_search import Rounding, choose_importance, gptq
from edge_medgemma.export.graphs.weights import (
    BITS,
    StorageOf,
    WeightFormat,
    pack_unsigned,
    quantize_blocks,
    unpack_unsigned,
)
from edge_medgemma.export.quantisation.folding import ScaleProblem

Array = NDArray[np.float32]


def searched_scale(
    name: str, problem: Callable[[], ScaleProblem], storage: WeightFormat, calibration: Calibration
) -> Array:
    """AWQ's scale [K] of a map, from the folder beside the calibration or new."""
    path = calibration.folder / f"searched.scale.{storage.kind}.{storage.block_size}.{name}.npz"
    if path.is_file():
        arrays, _ = load_group(path)
        scale: Array = arrays["scale"]
        return scale
    scale = choose_importance(*problem(), nearest_rounding(storage))
    save_group(path, {"scale": scale})
    return scale


def searched_storage(
    plain: StorageOf, calibration: Calibration, scales: dict[str, Array]
) -> StorageOf:
    """Storages of decoder maps whose integers GPTQ chooses.

    Args:
        plain: to nearest
        calibration: of the checkpoint
        scales: [K] by map, what the input was divided by
    """

    def storage_of(name: str) -> WeightFormat:
        storage = plain(name)
        if not name.startswith("text."):
            return storage
        return replace(
            storage, quantizer=lambda values: _search(name, storage, values, calibration, scales)
        )

    return storage_of


def nearest_rounding(storage: WeightFormat) -> Rounding:
    """Round-to-nearest on [K, N], as the search wants it."""

    def rounding(weight: Array) -> tuple[NDArray[np.int8], Array]:
        values = np.ascontiguousarray(weight.T)
        integers, steps = quantize_blocks(values, storage.kind, storage.block_size)
        return np.ascontiguousarray(integers.T), np.ascontiguousarray(steps.T)

    return rounding


def _search(
    name: str,
    storage: WeightFormat,
    values: Array,
    calibration: Calibration,
    scales: dict[str, Array],
) -> tuple[NDArray[np.int8], Array]:
    """Integers [N, K] and steps [N, K / block], from the folder beside the calibration or new."""
    scale = scales.get(name, np.ones(values.shape[1], np.float32))
    path = calibration.folder / f"searched.{storage.kind}.{storage.block_size}.{name}.npz"
    if path.is_file():
        arrays, _ = load_group(path)
        if np.array_equal(arrays["scale"], scale):
            return unpack_unsigned(arrays["integers"], storage.kind), arrays["steps"]
    integers, steps = gptq(
        calibration.gram(name).divided(scale),
        np.ascontiguousarray(values.T),
        nearest_rounding(storage),
        2 ** (BITS[storage.kind] - 1) - 1,
        storage.block_size,
    )
    rows = np.ascontiguousarray(integers.T)
    row_steps = np.ascontiguousarray(steps.T)
    packed = pack_unsigned(rows, storage.kind)
    save_group(path, {"integers": packed, "steps": row_steps, "scale": scale})
    return rows, row_steps
