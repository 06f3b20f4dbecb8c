"""`edge-medgemma benchmark`: what a device can do. It stands here because it can make an engine."""

import hashlib
import shutil
import time
from pathlib import Path

import click

from edge_medgemma.export.commands.extras import requires_extra
from edge_medgemma.runtime.backends.select import Providers
from edge_medgemma.runtime.commands.options import (
    BUILTIN_ENGINE,
    provider_option,
    threads_option,
)
from edge_medgemma.runtime.commands.progress import named_progress, progress_bar
from edge_medgemma.runtime.topology import default_threads

BUILTIN_NAME = "demo"

EPILOG = """\b
Examples:
  edge-medgemma benchmark                       # the demo engine, two minutes
  edge-medgemma benchmark --synthetic 4b --json today.json --html today.html
  edge-medgemma benchmark --engine engines/medgemma --baseline today.json
"""


@click.command(epilog=EPILOG)
@click.option(
    "--engine", "engine", metavar="DIR|demo", default=None,
    help="Engine directory; demo is the built-in one.  [default: demo]",
)  # fmt: skip
@click.option(
    "--synthetic", type=click.Choice(["4b", "27b", "tiny"]),
    help="An engine of this shape with random weights; 4b is made once (4 GB, a minute) and kept "
    "in the user's cache.",
)  # fmt: skip
@click.option(
    "--suite", type=click.Choice(["quick", "full"]), default="quick", show_default=True,
    help="quick ends within ten minutes and says what it left out.",
)  # fmt: skip
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    help="Least repetitions of a row.  [default: the suite's]",
)
@provider_option
@threads_option
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Write every figure.",
)  # fmt: skip
@click.option(
    "--html", "html_path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Write a page with charts.",
)  # fmt: skip
@click.option(
    "--baseline", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="JSON of an earlier run; exit with 1 if a row is slower beyond its noise band.",
)  # fmt: skip
def command(
    engine: str | None,
    synthetic: str | None,
    suite: str,
    repeat: int | None,
    providers: Providers,
    threads: int | None,
    json_path: Path | None,
    html_path: Path | None,
    baseline: Path | None,
) -> None:
    """Measure what this device can do with an engine.

    Rows have the customary shapes: pp512 prefills 512 tokens, tg128 decodes 128, @d8192 does so
    at a context of 8192, ve1 encodes a slice; ct8 is a synthetic CT of 8 slices, from its folder to
    triage.json.
    """
    from edge_medgemma.runtime.commands.benchmark_table import benchmark_tables, comparison_table
    from edge_medgemma.runtime.commands.tables import print_table
    from edge_medgemma.runtime.profiling.baseline import compare, load_baseline, write_benchmark
    from edge_medgemma.runtime.profiling.benchmark import Request, run_benchmark
    from edge_medgemma.runtime.profiling.report.benchmark_page import write_benchmark_page

    started_s = time.perf_counter()
    if engine is not None and synthetic is not None:
        raise click.UsageError("give either --engine or --synthetic")
    earlier = load_baseline(baseline) if baseline is not None else None
    if synthetic is not None:
        directory = synthetic_engine(synthetic)
    else:
        directory = BUILTIN_ENGINE if engine in (None, BUILTIN_NAME) else Path(str(engine))
    request = Request(directory, providers, threads or default_threads(), suite, repeat, started_s)
    with named_progress("measuring peaks") as on_row:
        benchmark = run_benchmark(request, on_row)
    print_table(*benchmark_tables(benchmark))
    if json_path is not None:
        write_benchmark(benchmark, json_path)
    if html_path is not None:
        write_benchmark_page(benchmark, html_path)
    if earlier is not None:
        comparison = compare(earlier, benchmark)
        print_table(*comparison_table(comparison))
        if comparison.slower:
            raise SystemExit(1)


def synthetic_engine(size: str) -> Path:
    """The int4 engine of a synthetic checkpoint, made in the user's cache unless it is there.

    Its vision tower is int8, as that of a calibrated engine; ranges come from one synthetic image.

    Its folder is named after a hash of the checkpoint and of the exporter's own sources: another
    build makes another engine, and the one of the earlier build is removed.

    Raises:
        DependencyError: the `export` extra is not installed.
        ResourceError: the disk is full.
    """
    from edge_medgemma.runtime.store.ownership import make_own_folder
    from edge_medgemma.runtime.store.places import Place

    with requires_extra("export"):
        from edge_medgemma.export.checkpoint.synthetic import synthetic_checkpoint
        from edge_medgemma.export.engine import export_engine
        from edge_medgemma.export.quantisation.quant_scheme import default_block_size
        from edge_medgemma.export.synthetic_ranges import synthetic_vision_ranges
        from edge_medgemma.runtime.commands.progress import weights_progress_bar
    checkpoint = synthetic_checkpoint(size)
    folder = Place.ENGINES.folder
    key = hashlib.sha256(checkpoint.fingerprint().encode())
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        key.update(path.read_bytes())
    directory = folder / f"{checkpoint.name}-{key.hexdigest()[:12]}"
    make_own_folder(folder)
    if directory.exists():
        return directory
    for earlier in folder.glob(f"{checkpoint.name}-*"):
        shutil.rmtree(earlier, ignore_errors=True)
    click.echo(f"note: making {checkpoint.name} in {folder}; kept for the next time", err=True)
    with progress_bar("vision ranges") as on_layer:
        limits = synthetic_vision_ranges(checkpoint, folder, on_layer)
    with weights_progress_bar() as on_progress:
        export_engine(
            checkpoint,
            directory,
            precision="int4",
            block_size=default_block_size(checkpoint.text, "int4"),
            vision_limits=limits,
            on_progress=on_progress,
        )
    return directory
