"""`edge-medgemma calibrate`: slices through the float model, ranges and second moments out."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from edge_medgemma.export.commands.extras import requires_extra
from edge_medgemma.runtime.commands.progress import progress_bar
from edge_medgemma.runtime.errors import CheckpointError, EngineError
from edge_medgemma.runtime.manifest import MANIFEST_NAME

REPORTED = ("fp16", "int8", "int4")
"""Precisions that `--report` makes and measures."""

EPILOG = """\b
Examples:
  edge-medgemma calibrate google/medgemma-1.5-4b-it ct/ mr/ -o calibration.json
  edge-medgemma export google/medgemma-1.5-4b-it -o engine --calibration calibration.json
"""


@click.command(epilog=EPILOG)
@click.argument("model")
@click.argument("scans", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="calibration.json to write; its arrays go into a folder beside it.",
)
@click.option(
    "--slices",
    default=32,
    show_default=True,
    type=click.IntRange(min=1),
    help="Slices to look at; a quarter more is held out to measure the loss.",
)
@click.option("--seed", default=0, show_default=True, help="Of the draw.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also make fp16, int8 and int4 engines, measure them, and write this HTML page.",
)
@click.option(
    "--block-size",
    type=click.Choice(["32", "64", "128"]),
    default="64",
    show_default=True,
    help="Of the int4 engine that --report makes.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Of the compute pool.")
def command(
    model: str,
    scans: tuple[Path, ...],
    output: Path,
    slices: int,
    seed: int,
    report: Path | None,
    block_size: str,
    threads: int | None,
) -> None:
    """Find the ranges of a model's activations on medical slices, for int8, int4 and fp16.

    MODEL is a checkpoint (folder or hub id) or an engine exported with --precision fp32. SCANS
    are folders or files; slices are sampled evenly over modality, window and position. An
    interrupted run goes on where it stopped. The folder beside calibration.json holds the
    held-out slices and the arrays that an export needs.
    """
    with requires_extra("cpu,export"):
        from edge_medgemma.calibration.run import calibrate_engine
        from edge_medgemma.calibration.slices import sample_calibration_slices
        from edge_medgemma.runtime.generation.engine import Engine
    if report is not None and (Path(model) / MANIFEST_NAME).is_file():
        raise click.UsageError("--report makes engines, which needs a checkpoint as MODEL")
    with progress_bar("reading series") as on_progress:
        slice_set = sample_calibration_slices(scans, slices, seed, on_progress)
    with (
        _float_engine(model, output) as directory,
        Engine.open(directory, threads=threads) as engine,
        progress_bar("layers") as on_layer,
    ):
        calibrate_engine(engine, slice_set, output, threads=threads, on_progress=on_layer)
    _report(model, output, report, int(block_size), threads)


@contextmanager
def _float_engine(model: str, output: Path) -> Iterator[Path]:
    """The engine itself, or the checkpoint's float32 engine, kept until the calibration is done."""
    if (Path(model) / MANIFEST_NAME).is_file():
        yield Path(model)
        return
    from edge_medgemma.calibration.record import data_folder
    from edge_medgemma.export.checkpoint.loader import open_checkpoint
    from edge_medgemma.export.engine import export_engine
    from edge_medgemma.runtime.manifest import load_manifest

    if not Path(model).is_dir() and Path(model).exists():
        raise CheckpointError(f"'{model}' is a file; expected a checkpoint folder or an engine")
    checkpoint = open_checkpoint(model)
    directory = data_folder(output) / "float32-engine"
    fingerprint = checkpoint.fingerprint()
    if directory.is_dir():
        try:
            is_current = load_manifest(directory).source.sha256 == fingerprint
        except EngineError:
            is_current = False
        if not is_current:
            shutil.rmtree(directory)
    if not directory.is_dir():
        with progress_bar("float32 weights") as on_progress:
            export_engine(
                checkpoint, directory, precision="fp32", block_size=32, on_progress=on_progress
            )
    yield directory
    shutil.rmtree(directory)


def _report(
    model: str, output: Path, report: Path | None, block_size: int, threads: int | None
) -> None:
    """Print the summary and, where asked, measure engines and write the page."""
    from edge_medgemma.calibration.loss.loss_report import Measured, table, write_report
    from edge_medgemma.calibration.record import load_calibration
    from edge_medgemma.export.calibrated_export import Budget, export_calibrated
    from edge_medgemma.export.checkpoint.loader import open_checkpoint

    calibration = load_calibration(output)
    engines: list[Measured] = []
    if report is not None:
        checkpoint = open_checkpoint(model)
        for precision in REPORTED:
            with (
                tempfile.TemporaryDirectory(dir=output.parent, prefix=".measured.") as folder,
                progress_bar(f"measuring {precision}") as on_measure,
            ):
                manifest, loss = export_calibrated(
                    checkpoint,
                    Path(folder) / "engine",
                    precision=precision,
                    block_size=block_size,
                    calibration=calibration,
                    budget=Budget(force=True),
                    threads=threads,
                    on_measure=on_measure,
                )
            size = sum(record.bytes for record in manifest.files.values())
            engines.append(Measured(precision, size, loss))
        write_report(report, calibration, engines)
    click.echo(table(calibration, engines))
    click.echo(f"{output}: pass it to 'edge-medgemma export --calibration'")
