"""Export with a calibration: the engine is measured before it is kept, and says what it costs."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_medgemma.calibration.domain import fit_domain, widened
from edge_medgemma.calibration.loss.quantization_error import Loss, measure_loss
from edge_medgemma.calibration.record import Calibration
from edge_medgemma.export.checkpoint.checkpoint import Checkpoint
from edge_medgemma.export.engine import Progress, write_engine
from edge_medgemma.export.graphs.writer import write_bytes
from edge_medgemma.export.quantisation.quant_scheme import ExportPlan, plan_export
from edge_medgemma.export.reference_outputs import (
    EngineCheck,
    add_reference_outputs,
    check_engine,
    cpu_engine,
)
from edge_medgemma.export.target import CPU, Target
from edge_medgemma.runtime.domain import DOMAIN_FILE, Domain, dump_domain, pool_tokens
from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.files import new_directory
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.manifest import MANIFEST_NAME, Manifest, Scope, dump_manifest
from edge_medgemma.runtime.parity import HELD_OUT_SLICES

DEFAULT_MAX_KL = 0.05
"""Nats; what it costs Gemma to read images causally is 0.03 to 0.09
(https://github.com/vllm-project/vllm/issues/40106)."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The loss that is accepted."""

    max_kl: float = DEFAULT_MAX_KL
    """Nats; an engine above it is refused."""
    target_kl: float | None = None
    """Nats; an int4 engine above it gets more layers in int8, one group after the other."""
    force: bool = False
    """Keep an engine whatever it loses."""

    @property
    def limit(self) -> float:
        """Nats that an engine may lose."""
        return self.max_kl if self.target_kl is None else min(self.max_kl, self.target_kl)

    def check(self, kl_nats: float, precision: str, cost: str) -> None:
        """Refuse an engine that loses too much.

        Raises:
            EngineError: `kl_nats` is above the limit, or not a number, which `force` does not accept.
        """
        if not math.isfinite(kl_nats):
            raise EngineError(
                f"the {precision} engine or its float model computes no numbers {cost}: the weights of "
                "the checkpoint pass the range of float32; download it again"
            )
        if not (kl_nats <= self.limit or self.force):
            raise EngineError(
                f"the {precision} engine loses {kl_nats:.4f} nats {cost}, more than "
                f"{self.limit:g}; choose --precision {'fp16' if precision == 'int8' else 'auto or int8'} or a "
                "smaller --block-size, or keep it with --force"
            )


def export_calibrated(
    checkpoint: Checkpoint,
    destination: Path,
    *,
    precision: str,
    block_size: int,
    calibration: Calibration,
    budget: Budget,
    scope: Scope | None = None,
    target: Target = CPU,
    with_reference_outputs: bool = False,
    check: EngineCheck | None = None,
    threads: int | None = None,
    on_progress: Progress | None = None,
    on_measure: Callable[[int, int], None] | None = None,
) -> tuple[Manifest, Loss]:
    """Write the engine directory `destination` with its measured loss in the manifest.

    What a CPU cannot run is measured in float32 with the same weights. `with_reference_outputs`
    adds the outputs by which a device is judged; what `check` of the engine raises leaves nothing behind.

    Raises:
        EngineError: the loss is above the budget; nothing is left behind.
        CheckpointError: the calibration is of another checkpoint, or a weight is not finite.
        ResourceError: `destination` exists, or the disk is full; nothing is left behind.
    """
    with new_directory(destination) as folder:
        for int8_layers in int8_choices(checkpoint.text.layers):
            export_plan = plan_export(
                checkpoint, precision, block_size, calibration, int8_layers, target
            )
            manifest = write_engine(export_plan, folder, scope, on_progress)
            with cpu_engine(export_plan, folder) as measured:
                with Engine.open(measured, threads=threads, check_files=False) as engine:
                    loss = measure_loss(
                        engine,
                        calibration,
                        residual_scale=export_plan.residual_scale,
                        threads=threads,
                        on_progress=on_measure,
                    )
                    domain = engine_domain(engine, calibration, export_plan.residual_scale)
                if with_reference_outputs:
                    manifest = add_reference_outputs(measured, folder, manifest, threads)
            is_met = budget.target_kl is None or loss.kl_nats <= budget.target_kl
            if is_met or precision != "int4":
                break
        flips = f"on {HELD_OUT_SLICES} ({loss.flags_flipped:.1%} of the flags flip)"
        budget.check(loss.kl_nats, precision, flips)
        check_engine(check, export_plan, folder)
        if domain.parts:
            file = write_bytes(folder / DOMAIN_FILE, dump_domain(domain))
            manifest = replace(manifest, files={**manifest.files, DOMAIN_FILE: file})
        record = calibration_record(calibration, export_plan, int8_layers, loss)
        manifest = replace(manifest, calibration=record)
        write_bytes(folder / MANIFEST_NAME, dump_manifest(manifest).encode())
    return manifest, loss


def engine_domain(engine: Engine, calibration: Calibration, residual_scale: float) -> Domain:
    """What an engine was calibrated on, in its own image features.

    Args:
        engine: measured.
        calibration: holds the float engine's features of every slice.
        residual_scale: what the engine's image features were divided by.
    """
    studies = [
        replace(one, pooled=one.pooled / np.float32(residual_scale))
        for one in calibration.studies()
    ]
    held_out = calibration.held_out()
    actual = np.concatenate([engine.encode_images(one.pixels[None]) for one in held_out])
    return widened(
        fit_domain(studies),
        [(one.modality, one.body_part) for one in held_out],
        pool_tokens(calibration.features()) / np.float32(residual_scale),
        pool_tokens(actual),
    )


def calibration_record(
    calibration: Calibration, export_plan: ExportPlan, int8_layers: frozenset[str], loss: Loss
) -> dict[str, Any]:
    """The manifest's record of a calibration and its cost."""
    summary = {
        name: value
        for name, value in asdict(loss).items()
        if name not in ("layers", "findings", "slice_kl_nats", "slice_cosine")
    }
    slices = asdict(calibration.slices) | {"warnings": list(calibration.slices.warnings)}
    return {
        "slices": slices,
        "loss": summary,
        "measured_on": HELD_OUT_SLICES,
        "findings": [asdict(one) for one in loss.findings],
        "int8_layers": sorted(int8_layers),
        "residual_peak": calibration.residual_peak,
        "residual_scale": export_plan.residual_scale,
        "fp32_ops": list(export_plan.fp32_ops),
    }


def int8_choices(layers: int) -> Iterator[frozenset[str]]:
    """Linear layers of the decoder in int8 besides the values: none, then more, the dearest first."""
    chosen: frozenset[str] = frozenset()
    yield chosen
    for leaf in ("mlp.down_proj", "self_attn.o_proj", "mlp.gate_up_proj", "self_attn.qk_proj"):
        chosen |= {f"text.layers.{i}.{leaf}" for i in range(layers)}
        yield chosen
