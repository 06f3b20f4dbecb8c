"""`edge-medgemma export`: a checkpoint in, an engine directory out."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_medgemma.export.commands.export_options import (
    MEASURED,
    ExportOptions,
    FlipOptions,
    LossOptions,
    check_usage,
)
from edge_medgemma.export.commands.export_record import export_record
from edge_medgemma.export.commands.extras import requires_extra
from edge_medgemma.runtime.commands.progress import (
    named_progress,
    progress_bar,
    weights_progress_bar,
)
from edge_medgemma.runtime.documents import dump_json

if TYPE_CHECKING:
    from edge_medgemma.export.calibrated_export import Budget
    from edge_medgemma.export.checkpoint.checkpoint import Checkpoint
    from edge_medgemma.export.flips import FlipCheck
    from edge_medgemma.export.target import Target
    from edge_medgemma.runtime.manifest import Manifest

EPILOG = """\b
Examples:
  edge-medgemma export google/medgemma-1.5-4b-it -o medgemma-int4
  edge-medgemma export ./checkpoint -o engine --precision int8 --lora ./adapter
  edge-medgemma export ./checkpoint -o engine --calibration calibration.json
  edge-medgemma export ./checkpoint -o engine --flips-on scans/ --require-no-flips 0
  edge-medgemma export ./checkpoint -o engine --target tensorrt   # for a Jetson
  edge-medgemma export --synthetic 4b --vision int8 -o random-4b  # to measure a device
"""


@click.command(epilog=EPILOG)
@click.argument("checkpoint", required=False)
@click.option(
    "-o",
    "--output",
    "engine",
    required=True,
    type=click.Path(path_type=Path),
    help="Engine directory to make; it must not exist.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16", "int8", "int4"]),
    default="auto",
    show_default=True,
    help="Of the decoder's weights; int8 and int4 keep head and embedding int8. auto is int4 with as "
    "many layers in int8 as --max-kl takes.",
)
@click.option(
    "--block-size",
    type=click.Choice(["32", "64", "128"]),
    help="Weights that share a scale; smaller is closer to the original, larger is faster.  "
    "[default: 32 for int8, else 64]",
)
@click.option(
    "--target",
    type=click.Choice(["cpu", "cuda", "tensorrt"]),
    default="cpu",
    show_default=True,
    help="What runs the engine: onnxruntime on CPU or CUDA, or TensorRT 10.15 and later.",
)
@click.option(
    "--activations",
    type=click.Choice(["bf16", "fp16"]),
    help="What a GPU computes in; fp16 is safe with --calibration.  [default: bf16]",
)
@click.option(
    "--reference-outputs/--no-reference-outputs",
    default=True,
    help="For a GPU: add the CPU's outputs, by which a device tests itself.",
)
@click.option(
    "--lora",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of a PEFT LoRA adapter to merge.",
)
@click.option(
    "--synthetic",
    type=click.Choice(["4b", "27b", "tiny"]),
    help="Random weights in this shape instead of a checkpoint.",
)
@click.option(
    "--vision",
    type=click.Choice(["fp32", "int8"]),
    help="Vision tower of a synthetic int4 or int8 engine; int8 takes its ranges from a synthetic "
    "image. [default: fp32]",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, dir_okay=False),
    help="calibration.json of this checkpoint: int8 vision, searched int4, safe fp16.",
)
@click.option(
    "--max-kl",
    type=click.FloatRange(min=0),
    help="Refuse an int8 or int4 engine that loses more nats. [default: 0.05]",
)
@click.option(
    "--target-kl",
    type=click.FloatRange(min=0),
    help="Make layers of an int4 engine int8 until the loss is this low.",
)
@click.option("--force", is_flag=True, help="Keep the engine whatever it loses.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the measured loss as an HTML page.",
)
@click.option(
    "--require-no-flips",
    type=click.IntRange(min=0),
    metavar="N",
    help="Refuse an engine that changes more than N outcomes of triage against float32.",
)
@click.option(
    "--flips-on",
    type=click.Path(path_type=Path),
    metavar="SCANS",
    help="Scans for --require-no-flips, labelled or not.",
)
@click.option("--revision", help="Branch, tag or commit of a hub checkpoint.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of sentences.")
def command(
    checkpoint: str | None,
    engine: Path,
    precision: str,
    block_size: str | None,
    target: str,
    activations: str | None,
    reference_outputs: bool,
    lora: Path | None,
    synthetic: str | None,
    vision: str | None,
    calibration: Path | None,
    max_kl: float | None,
    target_kl: float | None,
    force: bool,
    report: Path | None,
    require_no_flips: int | None,
    flips_on: Path | None,
    revision: str | None,
    as_json: bool,
) -> None:
    """Convert a MedGemma checkpoint into an engine.

    CHECKPOINT is a folder with config.json and .safetensors files, or a hub id. Any
    Gemma3ForConditionalGeneration is taken; MedGemma 1.5 exists as 4B, MedGemma 1 also as 27B.
    """
    options = ExportOptions(
        engine=engine,
        precision=precision,
        block_size=int(block_size or 0),
        with_reference_outputs=reference_outputs and target != "cpu",
        vision=vision,
        calibration=calibration,
        loss=LossOptions(max_kl, target_kl, force, report),
        flips=FlipOptions(require_no_flips, flips_on),
    )
    if (checkpoint is None) == (synthetic is None):
        raise click.UsageError("give either CHECKPOINT or --synthetic")
    if synthetic is not None and (lora is not None or revision is not None):
        raise click.UsageError("--lora and --revision go with CHECKPOINT, not with --synthetic")
    check_usage(options, is_synthetic=synthetic is not None)
    started_s = time.perf_counter()
    with requires_extra("export"):
        from edge_medgemma.export.checkpoint.loader import open_checkpoint
        from edge_medgemma.export.checkpoint.synthetic import synthetic_checkpoint
        from edge_medgemma.export.quantisation.quant_scheme import default_block_size
        from edge_medgemma.export.target import choose_target
    device = choose_target(target, precision, activations)
    if synthetic is not None:
        source = synthetic_checkpoint(synthetic)
    else:
        source = open_checkpoint(str(checkpoint), revision, lora)
    if not options.block_size:
        options = replace(options, block_size=default_block_size(source.text, precision))
    check = _flip_check(options.flips, source)
    manifest, words = _export(options, source, device, check)
    if check is not None:
        words = [*words, f"{check.count} against the float32 engine"]
    record = export_record(str(engine), manifest, time.perf_counter() - started_s)
    if as_json:
        click.echo(dump_json(record), nl=False)
        return
    for sentence in words:
        click.echo(sentence)
    click.echo(
        f"{engine}: {record.bytes / 1e9:.2f} GB in {record.elapsed_s:.0f} s, "
        f"peak memory {record.peak_memory_bytes / 1e9:.2f} GB"
    )


def _flip_check(flips: FlipOptions, source: "Checkpoint") -> "FlipCheck | None":
    if flips.most is None or flips.scans is None:
        return None
    with requires_extra("cpu,export"):
        from edge_medgemma.export.flips import FlipCheck
    return FlipCheck(source, flips.scans, flips.most)


def _export(
    options: ExportOptions, source: "Checkpoint", target: "Target", check: "FlipCheck | None"
) -> "tuple[Manifest, Sequence[str]]":
    """The engine's manifest, and sentences on what it loses."""
    if options.calibration is not None:
        return _export_calibrated(options, source, target, options.calibration, check)
    if source.kind != "synthetic" and options.precision in MEASURED:
        return _export_measured(options, source, target, check)
    with requires_extra("export"):
        from edge_medgemma.export.engine import export_engine
        from edge_medgemma.export.reference_outputs import export_with_reference_outputs
    limits = None
    if options.vision == "int8":
        with requires_extra("cpu,export"), progress_bar("vision ranges") as on_layer:
            from edge_medgemma.export.synthetic_ranges import synthetic_vision_ranges

            folder = options.engine.absolute().parent
            limits = synthetic_vision_ranges(source, folder, on_layer)
    write = export_engine
    if options.with_reference_outputs or check is not None:
        with_outputs = options.with_reference_outputs
        write = partial(export_with_reference_outputs, with_outputs=with_outputs, check=check)
    with weights_progress_bar() as on_progress:
        manifest = write(
            source,
            options.engine,
            precision="int4" if options.precision == "auto" else options.precision,
            block_size=options.block_size,
            target=target,
            vision_limits=limits,
            on_progress=on_progress,
        )
    return manifest, ()


def _export_measured(
    options: ExportOptions, source: "Checkpoint", target: "Target", check: "FlipCheck | None"
) -> "tuple[Manifest, Sequence[str]]":
    """Export without slices, and the loss on text that was not looked at."""
    with requires_extra("cpu,export"):
        from edge_medgemma.export.measured_export import export_measured
        from edge_medgemma.runtime.parity import HELD_OUT_TEXT
    with named_progress("reading") as on_stage:
        manifest, loss = export_measured(
            source,
            options.engine,
            precision=options.precision,
            block_size=options.block_size,
            budget=_budget(options.loss),
            target=target,
            with_reference_outputs=options.with_reference_outputs,
            check=check and partial(check, on_stage=on_stage),
            on_stage=on_stage,
        )
    kinds = {name.rpartition(".")[2] for name in (manifest.calibration or {})["int8_layers"]}
    more = f" with every {' and '.join(sorted(kinds))} in int8" if kinds else ""
    limit = "" if options.loss.force else f", of {_budget(options.loss).limit:g} accepted"
    return manifest, [f"{manifest.precision.decoder}{more}, on {HELD_OUT_TEXT}: {loss}{limit}"]


def _budget(options: LossOptions) -> "Budget":
    from edge_medgemma.export.calibrated_export import DEFAULT_MAX_KL, Budget

    max_kl = DEFAULT_MAX_KL if options.max_kl is None else options.max_kl
    return Budget(max_kl, options.target_kl, options.force)


def _export_calibrated(
    options: ExportOptions,
    source: "Checkpoint",
    target: "Target",
    calibration_path: Path,
    check: "FlipCheck | None",
) -> "tuple[Manifest, Sequence[str]]":
    """Export, measure and write the page."""
    with requires_extra("cpu,export"):
        from edge_medgemma.calibration.loss.loss_report import Measured, table, write_report
        from edge_medgemma.calibration.record import load_calibration
        from edge_medgemma.export.calibrated_export import export_calibrated
    budget, precision = _budget(options.loss), options.precision
    if precision == "auto":
        budget, precision = replace(budget, target_kl=budget.limit), "int4"
    calibration = load_calibration(calibration_path)
    with progress_bar("exporting and measuring") as on_progress:
        manifest, loss = export_calibrated(
            source,
            options.engine,
            precision=precision,
            block_size=options.block_size,
            calibration=calibration,
            budget=budget,
            target=target,
            with_reference_outputs=options.with_reference_outputs,
            check=check and partial(check, on_stage=lambda _, *steps: on_progress(*steps)),
            on_progress=on_progress,
            on_measure=on_progress,
        )
    size = sum(record.bytes for record in manifest.files.values())
    measured = [Measured(precision, size, loss)]
    if options.loss.report is not None:
        write_report(options.loss.report, calibration, measured)
    return manifest, [table(calibration, measured)]
