"""Choices of `edge-medgemma export`, and which of them go together."""

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path

import click

from edge_medgemma.runtime.errors import DependencyError

MEASURED = ("auto", "int8", "int4")
"""Precisions whose loss is measured at every export of a checkpoint."""


@dataclass(frozen=True, slots=True)
class LossOptions:
    """Limits on the measured loss, and its page."""

    max_kl: float | None
    target_kl: float | None
    force: bool
    report: Path | None


@dataclass(frozen=True, slots=True)
class FlipOptions:
    """How many outcomes of triage may change, and on which scans."""

    most: int | None
    scans: Path | None


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Choices of the command line, without the checkpoint."""

    engine: Path
    precision: str
    block_size: int
    """0 until the checkpoint is open, where none is named"""
    with_reference_outputs: bool
    vision: str | None
    calibration: Path | None
    loss: LossOptions
    flips: FlipOptions


def check_usage(options: ExportOptions, *, is_synthetic: bool) -> None:
    """Refuse choices that do not go together, before anything is read.

    Raises:
        UsageError: of these options, one excludes or needs another.
        DependencyError: reference outputs are asked for and nothing can compute them.
    """
    if options.vision is not None and not (is_synthetic and options.calibration is None):
        raise click.UsageError(
            "--vision goes with --synthetic; for a CHECKPOINT, --calibration makes vision int8"
        )
    if options.vision == "int8" and options.precision not in MEASURED:
        raise click.UsageError("--vision int8 goes with --precision int8 or int4")
    if any(math.isnan(nats) for nats in (options.loss.max_kl, options.loss.target_kl) if nats):
        raise click.UsageError("--max-kl and --target-kl are numbers of nats, not NaN")
    if options.loss != LossOptions(None, None, False, None):
        if options.calibration is None and options.loss.report is not None:
            raise click.UsageError("--report needs --calibration")
        if options.calibration is None and (is_synthetic or options.precision not in MEASURED):
            raise click.UsageError(
                "--max-kl, --target-kl and --force go with a CHECKPOINT and --precision auto, int8 "
                "or int4, or with --calibration"
            )
    if (options.flips.most is None) != (options.flips.scans is None):
        raise click.UsageError("--require-no-flips and --flips-on go together; give both or none")
    if options.flips.most is not None and is_synthetic:
        raise click.UsageError(
            "--require-no-flips goes with a CHECKPOINT: random weights assess nothing"
        )
    if options.with_reference_outputs and importlib.util.find_spec("onnxruntime") is None:
        raise DependencyError(
            "reference outputs are computed by onnxruntime, which is not installed; from a "
            "checkout, run: pip install '.[cpu,export]', or give --no-reference-outputs"
        )
