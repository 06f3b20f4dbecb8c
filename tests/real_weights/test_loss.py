"""What rounding the weights costs on a medical text; bounds.py says how much it may."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from real_weights.bounds import MAX_KL_NATS
from real_weights.engines import BLOCK_SIZE, logits_of
from real_weights.scores import score
from real_weights.table import add_row

from edge_medgemma.calibration.run import calibrate_engine
from edge_medgemma.calibration.slices import sample_calibration_slices
from edge_medgemma.export.calibrated_export import Budget, export_calibrated
from edge_medgemma.export.checkpoint.checkpoint import Tensor
from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.engine import export_engine
from edge_medgemma.runtime.generation.engine import Engine

HEAD_CT = Path(__file__).parents[1] / "data" / "ct_head"
CALIBRATION_SLICES = 8


def check(
    name: str, directory: Path, ids: NDArray[np.int64], float_logits: NDArray[np.float32]
) -> None:
    """Measure an engine, note the figures, and hold it to its bound."""
    with Engine.open(directory, check_files=False) as engine:
        found = score(ids, float_logits, logits_of(engine, ids))
    add_row(
        f"{name} against fp32: the text, {len(ids)} tokens",
        f"{found.kl_mean:.2g} / {found.kl_median:.2g}",
        f"{found.top1:.1%}",
        f"{found.perplexity:.2f}",
        f"{MAX_KL_NATS[name]:.2g}",
    )
    assert found.kl_mean < MAX_KL_NATS[name], found


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantised_weights(
    precision: str,
    engines: Callable[[str], Path],
    ids: NDArray[np.int64],
    float_logits: NDArray[np.float32],
) -> None:
    check(precision, engines(precision), ids, float_logits)


@dataclass(frozen=True, slots=True)
class Rounded:
    """A tensor in bfloat16."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    def read(self, *index: slice) -> NDArray[np.float32]:
        return self.tensor.read(*index).astype(ml_dtypes.bfloat16).astype(np.float32)


def test_bfloat16_weights(
    checkpoint: Path, ids: NDArray[np.int64], float_logits: NDArray[np.float32], tmp_path: Path
) -> None:
    """A CPU computes with them in float32."""
    source = open_checkpoint(str(checkpoint))
    rounded = replace(source, tensors={name: Rounded(one) for name, one in source.tensors.items()})
    export_engine(rounded, tmp_path / "bf16", precision="fp32", block_size=BLOCK_SIZE)
    check("bf16", tmp_path / "bf16", ids, float_logits)


def test_calibrated_float16(
    checkpoint: Path,
    fp32: Engine,
    ids: NDArray[np.int64],
    float_logits: NDArray[np.float32],
    tmp_path: Path,
) -> None:
    slices = sample_calibration_slices((HEAD_CT,), CALIBRATION_SLICES, seed=0)
    calibration = calibrate_engine(fp32, slices, tmp_path / "calibration.json")
    export_calibrated(
        open_checkpoint(str(checkpoint)),
        tmp_path / "fp16",
        precision="fp16",
        block_size=BLOCK_SIZE,
        calibration=calibration,
        budget=Budget(force=True),
    )
    check("fp16", tmp_path / "fp16", ids, float_logits)
