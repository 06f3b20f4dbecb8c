"""Searched integers, kept in a folder: an export that was killed does not search twice."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.resume_store import load_group, save_group
from edge_medgemma.calibration.search import weight_search
from edge_medgemma.calibration.search.gram import Gram
from edge_medgemma.calibration.search.weight_search import Rounding, gptq
from edge_medgemma.export.graphs import rounding
from edge_medgemma.export.graphs.rounding import (
    INT4_LARGEST,
    INT4_LOWEST,
    round_int4,
    searched_step,
)
from edge_medgemma.export.graphs.weights import (
    WeightFormat,
    WeightFormatOf,
    pack_unsigned,
    unpack_unsigned,
)
from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.store.keys import hashed_code, hashed_key, program_identity

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Search:
    """What GPTQ chooses the integers by."""

    folder: Path
    """Keeps what was found"""
    gram_of: Callable[[str], Gram]
    """Second moments of the input of a linear layer; asked for where nothing is kept"""


def searched_formats(plain: WeightFormatOf, search: Search) -> WeightFormatOf:
    """The formats `plain`, with GPTQ as the quantizer of the decoder's 4-bit layers."""

    def format_of(name: str) -> WeightFormat:
        weight_format = plain(name)
        if not name.startswith("text.") or weight_format.kind != "int4":
            return weight_format

        def quantizer(values: Array) -> tuple[NDArray[np.int8], Array]:
            return _searched(name, weight_format, values, search)

        return replace(weight_format, quantizer=quantizer)

    return format_of


def int4_rounding(block_size: int, *, is_signed: bool) -> Rounding:
    """Each weight of [K, N] by itself, as the search wants it."""

    def rounded(weight: Array, importance: Array) -> tuple[NDArray[np.int8], Array]:
        blocks = np.ascontiguousarray(weight.T).reshape(weight.shape[1], -1, block_size)
        step = searched_step(blocks, importance.reshape(-1, block_size), is_signed=is_signed)
        integers = round_int4(blocks, step).reshape(weight.shape[1], -1)
        return np.ascontiguousarray(integers.T), np.ascontiguousarray(step[..., 0].T)

    return rounded


def _searched(
    name: str, weight_format: WeightFormat, values: Array, search: Search
) -> tuple[NDArray[np.int8], Array]:
    """Integers [N, K] and block scales [N, K / block], from the folder or new."""
    block_size, is_signed = weight_format.block_size, weight_format.is_signed
    path = (
        search.folder / f"searched.{block_size}.{'signed' if is_signed else 'positive'}.{name}.npz"
    )
    kept = _kept(path)
    if kept is not None:
        return unpack_unsigned(kept["integers"], weight_format.kind), kept["block_scales"]
    integers, column_scales = gptq(
        search.gram_of(name),
        np.ascontiguousarray(values.T),
        int4_rounding(block_size, is_signed=is_signed),
        (INT4_LOWEST, INT4_LARGEST),
        block_size,
    )
    rows = np.ascontiguousarray(integers.T)
    block_scales = np.ascontiguousarray(column_scales.T)
    searched: dict[str, NDArray[Any]] = {
        "integers": pack_unsigned(rows, weight_format.kind),
        "block_scales": block_scales,
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
    """The code that chooses integers."""
    files = (__file__, weight_search.__file__, rounding.__file__)
    folders = (Path(str(file)).parent for file in files)
    return {"program": program_identity(), "code": hashed_key(*map(hashed_code, folders))}
