"""An engine for a device that this machine need not have, measured on the CPU all the same."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from edge_medgemma.export.checkpoint.checkpoint import Checkpoint
from edge_medgemma.export.engine import Progress, write_engine
from edge_medgemma.export.graphs.writer import write_bytes
from edge_medgemma.export.quantisation.quant_scheme import ExportPlan, plan_export
from edge_medgemma.export.target import CPU, Target
from edge_medgemma.runtime.backends.select import Provider, Providers
from edge_medgemma.runtime.backends.self_test.reference_outputs import (
    REFERENCE_OUTPUTS_NAME,
    dump_reference_outputs,
)
from edge_medgemma.runtime.files import new_directory
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.self_test import make_reference_outputs
from edge_medgemma.runtime.manifest import MANIFEST_NAME, Manifest, dump_manifest

EngineCheck = Callable[[Path], None]
"""Called with a directory that has the new engine's weights and that a CPU runs; raises to refuse."""


def export_with_reference_outputs(
    checkpoint: Checkpoint,
    destination: Path,
    *,
    precision: str,
    block_size: int,
    target: Target,
    vision_limits: Mapping[str, float] | None = None,
    threads: int | None = None,
    on_progress: Progress | None = None,
    with_outputs: bool = True,
    check: EngineCheck | None = None,
) -> Manifest:
    """`export_engine` for a device, with the outputs by which it is judged there.

    Without them, a `check` of the engine can be had all the same; what it raises leaves nothing behind.
    """
    export_plan = plan_export(
        checkpoint, precision, block_size, target=target, vision_limits=vision_limits
    )
    with new_directory(destination) as folder:
        manifest = write_engine(export_plan, folder, None, on_progress)
        with cpu_engine(export_plan, folder) as measured:
            if check is not None:
                check(measured)
            if with_outputs:
                manifest = add_reference_outputs(measured, folder, manifest, threads)
    return manifest


@contextmanager
def cpu_engine(export_plan: ExportPlan, folder: Path) -> Iterator[Path]:
    """A directory with the plan's weights that onnxruntime runs on a CPU.

    It is `folder`, where the export_plan itself was written, or the same weights in float32 inside it,
    deleted at the end: for as long it takes the engine's size again.
    """
    if export_plan.target.dialect == CPU.dialect and export_plan.target.activations != "bf16":
        yield folder
        return
    with tempfile.TemporaryDirectory(dir=folder, prefix=".cpu.") as name:
        write_engine(replace(export_plan, target=CPU, fp32_ops=()), Path(name), None, None)
        yield Path(name)


def check_engine(check: EngineCheck | None, export_plan: ExportPlan, folder: Path) -> None:
    """Have an engine in `folder` checked, or what of it a CPU runs; raises what the check raises."""
    if check is not None:
        with cpu_engine(export_plan, folder) as measured:
            check(measured)


def add_reference_outputs(
    engine: Path, folder: Path, manifest: Manifest, threads: int | None
) -> Manifest:
    """Write the reference outputs of the CPU engine into `folder`, and them into its manifest."""
    on_cpu = Providers(Provider.CPU, Provider.CPU)
    with Engine.open(engine, threads=threads, providers=on_cpu, check_files=False) as opened:
        record = write_bytes(
            folder / REFERENCE_OUTPUTS_NAME, dump_reference_outputs(make_reference_outputs(opened))
        )
    files = dict(sorted({**manifest.files, REFERENCE_OUTPUTS_NAME: record}.items()))
    manifest = replace(manifest, files=files)
    write_bytes(folder / MANIFEST_NAME, dump_manifest(manifest).encode())
    return manifest
