"""`edge-medgemma build`: TensorRT plans of an engine, on the device that will run them."""

from dataclasses import replace
from pathlib import Path

import click

from edge_medgemma.runtime.backends.cuda.device import CudaDevice
from edge_medgemma.runtime.backends.gpu import DeviceBudget
from edge_medgemma.runtime.backends.select import Provider, Providers
from edge_medgemma.runtime.backends.self_test.reference_outputs import load_reference_outputs
from edge_medgemma.runtime.backends.tensorrt.builder import build_plans, check_buildable
from edge_medgemma.runtime.backends.tensorrt.library import find_tensorrt
from edge_medgemma.runtime.backends.tensorrt.plan_files import plan_folder
from edge_medgemma.runtime.backends.tensorrt.shapes import DecoderShapes
from edge_medgemma.runtime.commands.progress import named_progress
from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.host import available_bytes
from edge_medgemma.runtime.memory.device_memory import (
    QUESTION_SLOTS,
    decoder_shapes,
    require_device_memory,
)
from edge_medgemma.runtime.memory.host_memory import DEFAULT_SHAPE

STAGE_LABELS = {
    "decoder": "building the decoder's plan",
    "vision": "building the vision tower's plan",
    "write": "writing the plans",
}
"""Stages of `build_plans` as the progress bar names them."""


@click.command(epilog="Example: edge-medgemma build engines/medgemma --slices 32")
@click.argument("engine_directory", metavar="ENGINE", type=click.Path(path_type=Path))
@click.option(
    "--slices", type=click.IntRange(min=1), default=85, show_default=True,
    help="Most slices the plans can read; fewer take less memory of the device.",
)  # fmt: skip
@click.option(
    "--workspace", "workspace_mb", type=click.IntRange(min=1), metavar="MB",
    help="Scratch memory of the builder's kernels.  [default: the library's choice]",
)  # fmt: skip
def command(engine_directory: Path, slices: int, workspace_mb: int | None) -> None:
    """Build the plans of an engine on the device that will run them.

    ENGINE was exported with --target tensorrt. Building takes minutes to an hour; the plans stand
    in ENGINE/devices and work with this library, driver and device only. They are compared with
    the CPU's outputs before they are accepted.
    """
    with Engine.open(engine_directory) as engine:
        check_buildable(engine.manifest, available_bytes())
        if load_reference_outputs(engine_directory, engine.manifest.files) is None:
            raise EngineError(
                f"'{engine_directory}' has no reference outputs, by which its plans would be tested; "
                "export it again without --no-reference-outputs"
            )
        shapes = prompt_shapes(engine, slices)
    library, device = find_tensorrt(), CudaDevice()
    found = device.properties()
    budget = DeviceBudget(found.free_bytes, found.is_integrated)
    require_device_memory(engine.manifest, slices, DEFAULT_SHAPE, budget, available_bytes())
    with named_progress("building the plans") as progress:
        record = build_plans(
            engine_directory,
            engine.manifest,
            library,
            device,
            shapes,
            workspace_mb * 2**20 if workspace_mb else None,
            lambda stage: progress(STAGE_LABELS[stage], 0, 1),
        )
    chosen = Providers(Provider.TENSORRT, Provider.TENSORRT)
    with Engine.open(engine_directory, providers=chosen, check_files=False) as engine:
        _ = engine.choice  # compares them with the CPU's outputs
    size = sum(file.bytes for file in record.files.values())
    click.echo(f"{plan_folder(engine_directory)}: {size / 1e9:.2f} GB for {record.place.device}")


def prompt_shapes(engine: Engine, slices: int) -> DecoderShapes:
    """Capacities for so many slices, with a prompt of which more tokens are text than usual too."""
    shapes = decoder_shapes(engine.manifest, slices)
    read = sum(len(chunk.ids) for chunk in engine.prompt.prefix("", slices))
    return replace(shapes, global_rows=max(shapes.global_rows, read + QUESTION_SLOTS))
