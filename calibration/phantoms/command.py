"""`edge-medgemma phantom`: draw synthetic head CTs, and measure an engine on unseen ones."""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click
from rich.table import Table

from edge_medgemma.calibration.phantoms.anatomy import FINDINGS
from edge_medgemma.calibration.phantoms.dataset import TRUTH, WRITERS, write_dataset
from edge_medgemma.calibration.phantoms.dicom import write_dicom_series
from edge_medgemma.calibration.phantoms.drawing import Phantom, draw_phantom
from edge_medgemma.calibration.phantoms.evaluation import FindingQuality, evaluate_engine
from edge_medgemma.calibration.phantoms.inserted import insert_lesions
from edge_medgemma.calibration.phantoms.real_head import open_real_head
from edge_medgemma.calibration.phantoms.seeds import EVALUATION_FIRST_SEED
from edge_medgemma.runtime.commands.options import engine_option, threads_option
from edge_medgemma.runtime.commands.progress import progress_bar
from edge_medgemma.runtime.commands.tables import print_table
from edge_medgemma.runtime.files import new_directory
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.triage.protocol import load_protocol

head_option = click.option(
    "--head", type=click.Path(exists=True, path_type=Path), metavar="FOLDER",
    help="Draw the findings into the real head CT in FOLDER, turned and scaled by the seed. What "
    "comes of it holds that patient's pixels.",
)  # fmt: skip


@click.group(epilog="Example: edge-medgemma phantom evaluate --count 200")
def command() -> None:
    """Draw synthetic head CTs and measure an engine on them."""


@command.command(epilog="Example: edge-medgemma phantom draw scan/ --finding skull_fracture")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--seed", type=click.IntRange(min=0), default=EVALUATION_FIRST_SEED, show_default=True
)
@click.option(
    "--finding", "findings", multiple=True, type=click.Choice(FINDINGS),
    help="Draw these; may be repeated.  [default: by chance]",
)  # fmt: skip
@click.option("--healthy", is_flag=True, help="Draw no finding.")
@head_option
def draw(
    folder: Path, seed: int, findings: tuple[str, ...], healthy: bool, head: Path | None
) -> None:
    """Write one phantom as a DICOM CT series to FOLDER, which must not exist yet."""
    if healthy and findings:
        raise click.UsageError("--healthy and --finding exclude each other; give one of them")
    chosen = frozenset(findings) if findings or healthy else None
    phantom = _drawing(head)(seed, findings=chosen)
    with new_directory(folder) as temporary:
        write_dicom_series(phantom, temporary)
    shown = ", ".join(code for code in FINDINGS if code in phantom.findings) or "no finding"
    click.echo(f"{len(phantom.hounsfield)} slices with {shown} in {folder}")


@command.command(
    epilog="Example: edge-medgemma phantom dataset --layout cq500 --count 20 -o cq500/"
)
@click.option("--layout", type=click.Choice(tuple(WRITERS)), required=True)
@click.option("--count", type=click.IntRange(min=1, max=9999), default=20, show_default=True)
@click.option(
    "--seed", type=click.IntRange(min=0), default=EVALUATION_FIRST_SEED, show_default=True,
    help="Of the first phantom; from the default on, none was ever trained on.",
)  # fmt: skip
@click.option(
    "-o", "--out", "folder", type=click.Path(path_type=Path), required=True, metavar="FOLDER",
    help="Must not exist yet.",
)  # fmt: skip
def dataset(layout: str, count: int, seed: int, folder: Path) -> None:
    """Write COUNT labelled phantoms as a public dataset lies on disk.

    Every finding is drawn: heads as `phantom draw` draws them, chests of simple shapes.
    """
    with progress_bar("drawing phantoms") as update:
        studies = write_dataset(layout, count, seed, folder, update)
    truth = f"; {TRUTH} says what was drawn" if (folder / TRUTH).is_file() else ""
    click.echo(f"{len(studies)} {WRITERS[layout].what} in the layout {layout} in {folder}{truth}")


@command.command(epilog="Example: edge-medgemma phantom evaluate --engine engines/mine --count 200")
@engine_option
@click.option("--count", type=click.IntRange(min=2), default=200, show_default=True)
@click.option(
    "--seed", type=click.IntRange(min=0), default=EVALUATION_FIRST_SEED, show_default=True,
    help="Of the first phantom; from the default on, none was ever trained on.",
)  # fmt: skip
@head_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@threads_option
def evaluate(
    engine_directory: Path,
    count: int,
    seed: int,
    head: Path | None,
    as_json: bool,
    threads: int | None,
) -> None:
    """Triage COUNT unseen phantoms and compare with what was drawn."""
    protocol = load_protocol("head_ct")
    with (
        Engine.open(engine_directory, threads=threads) as engine,
        progress_bar("triaging phantoms") as update,
    ):
        qualities = evaluate_engine(
            engine, protocol, range(seed, seed + count), update, _drawing(head)
        )
        scope = engine.manifest.scope
    if scope is not None:
        click.echo(f"note: {scope.notice}", err=True)
    if as_json:
        content = {"first_seed": seed, "count": count, "findings": [asdict(q) for q in qualities]}
        click.echo(json.dumps(content, indent=1))
    else:
        _print_qualities(qualities)


def _drawing(head: Path | None) -> Callable[..., Phantom]:
    """Draws the phantom of a seed, or the lesions of a seed into a real head."""
    return draw_phantom if head is None else partial(insert_lesions, open_real_head(head))


def _print_qualities(qualities: tuple[FindingQuality, ...]) -> None:
    table = Table("finding", "with", "without", "AUC", "sensitivity", "specificity")
    table.columns[0].no_wrap = True
    for quality in qualities:
        table.add_row(
            quality.code,
            str(quality.positives),
            str(quality.negatives),
            _with_interval(quality.area_under_curve, quality.area_interval),
            _with_interval(quality.sensitivity, quality.sensitivity_interval),
            _with_interval(quality.specificity, quality.specificity_interval),
        )
    print_table(
        table,
        "In brackets: 95 % intervals (AUC bootstrapped, the others Wilson).",
        "Every finding is drawn: the figures say nothing of real ones.",
    )


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f}-{interval[1]:.3f})"
