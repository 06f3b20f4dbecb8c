"""`edge-medgemma export`: a checkpoint in, an engine directory out."""

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from edge_medgemma.runtime.errors import DependencyError

EPILOG = """\b
Examples:
  edge-medgemma export google/medgemma-1.5-4b-it -o medgemma-int4
  edge-medgemma export ./checkpoint -o engine --precision int8 --lora ./adapter
  edge-medgemma export --synthetic 4b -o random-4b      # to measure a device
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
    type=click.Choice(["fp32", "fp16", "int8", "int4"]),
    default="int4",
    show_default=True,
    help="Of the decoder's weights; int8 and int4 keep head and embedding int8.",
)
@click.option(
    "--block-size",
    type=click.Choice(["32", "64", "128"]),
    default="128",
    show_default=True,
    help="Weights that share a scale; smaller is closer to the original, larger is faster.",
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
@click.option("--revision", help="Branch, tag or commit of a hub checkpoint.")
def command(
    checkpoint: str | None,
    engine: Path,
    precision: str,
    block_size: str,
    lora: Path | None,
    synthetic: str | None,
    revision: str | None,
) -> None:
    """Convert a MedGemma checkpoint into an engine.

    CHECKPOINT is a folder with config.json and .safetensors files, or a hub id. Any
    Gemma3ForConditionalGeneration is taken; MedGemma 1.5 exists as 4B, MedGemma 1 also as 27B.
    """
    if (checkpoint is None) == (synthetic is None):
        raise click.UsageError("give either CHECKPOINT or --synthetic")
    if synthetic is not None and (lora is not None or revision is not None):
        raise click.UsageError("--lora and --revision go with CHECKPOINT, not with --synthetic")
    try:
        from edge_medgemma.export.checkpoint import open_checkpoint
        from edge_medgemma.export.engine import export_engine
        from edge_medgemma.export.synthetic import synthetic_checkpoint
    except ModuleNotFoundError as error:
        raise DependencyError(
            f"'{error.name}' is not installed; run: pip install 'edge-medgemma[export]'"
        ) from None

    start = time.perf_counter()
    if synthetic is not None:
        source = synthetic_checkpoint(synthetic)
    else:
        source = open_checkpoint(str(checkpoint), revision, lora)
    with _progress_bar() as on_progress:
        manifest = export_engine(
            source,
            engine,
            precision=precision,
            block_size=int(block_size),
            on_progress=on_progress,
        )
    size = sum(record.bytes for record in manifest.files.values())
    click.echo(
        f"{engine}: {size / 1e9:.2f} GB in {time.perf_counter() - start:.0f} s, "
        f"peak memory {_peak_bytes() / 1e9:.2f} GB"
    )


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int], None]]:
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("writing weights"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("weights", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _peak_bytes() -> int:
    """Peak resident bytes of this process; Linux reports kilobytes, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
