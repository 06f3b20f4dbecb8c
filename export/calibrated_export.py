"""Export with a calibration: the engine is measured before it is kept, and says what it costs."""

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
from edge_medgemma.export.quantisation.quant_scheme import LINEAR_LAYERS, ExportPlan, plan_export
from edge_medgemma.export.reference_outputs import add_reference_outputs, cpu_engine
from edge_medgemma.export.target import CPU, Target
from edge_medgemma.runtime.domain import DOMAIN_FILE, Domain, dump_domain, pool_tokens
from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.files import new_directory
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.manifest import MANIFEST_NAME, Manifest, Scope, dump_manifest

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
    threads: int | None = None,
    on_progress: Progress | None = None,
    on_measure: Callable[[int, int], None] | None = None,
) -> tuple[Manifest, Loss]:
    """Write the engine directory `destination` with its measured loss in the manifest.

    What a CPU cannot run is measured in float32 with the same weights. `with_reference_outputs`
    adds the outputs by which a device is judged.

    Raises:
        EngineError: the loss is above the budget; nothing is left behind.
        CheckpointError: the calibration is of another checkpoint, or a weight is not finite.
        ResourceError: `destination` exists, or the disk is full; nothing is left behind.
    """
    with new_directory(destination) as folder:
        for int8_layers in _int8_choices(checkpoint, precision, budget):
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
            if budget.target_kl is None or loss.kl_nats <= budget.target_kl:
                break
        _check(loss, precision, budget)
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
        "findings": [asdict(one) for one in loss.findings],
        "int8_layers": sorted(int8_layers),
        "residual_peak": calibration.residual_peak,
        "residual_scale": export_plan.residual_scale,
        "fp32_ops": list(export_plan.fp32_ops),
    }


def _int8_choices(
    checkpoint: Checkpoint, precision: str, budget: Budget
) -> Iterator[frozenset[str]]:
    """Linear layers of the decoder in int8: none, the outer layers, every down_proj, attention, all."""
    chosen: frozenset[str] = frozenset()
    yield chosen
    if precision != "int4" or budget.target_kl is None:
        return
    layers = range(checkpoint.text.layers)
    outer = (layers[0], layers[-1])
    chosen |= {f"text.layers.{i}.{name}" for i in outer for name in LINEAR_LAYERS}
    yield chosen
    for name in ("mlp.down_proj", "self_attn.o_proj", "self_attn.qkv_proj", "mlp.gate_up_proj"):
        chosen |= {f"text.layers.{i}.{name}" for i in layers}
        yield chosen


def _check(loss: Loss, precision: str, budget: Budget) -> None:
    limit = budget.max_kl if budget.target_kl is None else min(budget.max_kl, budget.target_kl)
    if loss.kl_nats <= limit or budget.force:
        return
    raise EngineError(
        f"the {precision} engine loses {loss.kl_nats:.4f} nats on held-out slices "
        f"({loss.flags_flipped:.1%} of the flags flip), more than {limit:g}; choose a higher "
        "--precision or a smaller --block-size, or keep it with --force"
    )
