"""`edge-medgemma verify`."""

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import click
from rich.table import Table

from edge_medgemma.export.verify import GREEDY_TOKENS, Comparison, verify_engine
from edge_medgemma.runtime.commands.progress import progress_bar
from edge_medgemma.runtime.commands.tables import print_table
from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.parity import PARITY_NAME, Parity, write_parity


@click.command(name="verify")
@click.argument("engine", type=click.Path(path_type=Path))
@click.option(
    "--checkpoint",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of the Hugging Face checkpoint that the engine was exported from.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the engine.")
def command(engine: Path, checkpoint: Path, as_json: bool, threads: int | None) -> None:
    """Compare an engine with transformers on its checkpoint.

    Runs text, one image, three images and a prompt longer than the sliding window through
    transformers (eager attention, float32) and through ENGINE, and leaves the worst of each
    figure in ENGINE/parity.json, for the benchmark.

    Example: edge-medgemma verify engines/medgemma --checkpoint medgemma-1.5-4b-it
    """
    with Engine.open(engine, threads=threads) as opened, progress_bar("comparing") as update:
        comparisons = verify_engine(opened, checkpoint, on_progress=update)
        parity = _parity(comparisons, opened.manifest.sha256)
    if as_json:
        click.echo(json.dumps({"prompts": [asdict(c) for c in comparisons]}, indent=1))
    else:
        print_table(_table(comparisons))
    try:
        write_parity(engine, parity)
    except ResourceError as error:
        click.echo(f"note: no {PARITY_NAME}: {error}", err=True)


def _parity(comparisons: tuple[Comparison, ...], manifest_sha256: str) -> Parity:
    return Parity(
        manifest_sha256=manifest_sha256,
        reference=f"transformers {version('transformers')}, float32",
        kl_nats=max(c.kl_nats for c in comparisons),
        top1_agreement=min(c.top1_agreement for c in comparisons),
        image_cosine=min(c.image_cosine for c in comparisons if c.image_cosine is not None),
    )


def _table(comparisons: tuple[Comparison, ...]) -> Table:
    table = Table(caption=f"logits at {GREEDY_TOKENS} positions after each prompt")
    for column in ("prompt", "tokens", "max |Δlogit|", "of range", "KL (nats)", "top-1", "greedy"):
        table.add_column(column, justify="left" if column == "prompt" else "right")
    table.add_column("image cosine", justify="right")
    for c in comparisons:
        table.add_row(
            c.prompt,
            str(c.tokens),
            f"{c.max_logit_difference:.3g}",
            f"{c.max_logit_difference / c.logit_range:.2e}",
            f"{c.kl_nats:.2e}",
            f"{c.top1_agreement:.1%}",
            f"{c.greedy_equal}/{c.greedy_tokens}",
            "" if c.image_cosine is None else f"{c.image_cosine:.6f}",
        )
    return table
