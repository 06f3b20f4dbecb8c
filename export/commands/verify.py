"""`edge-medgemma verify`."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_medgemma.export.commands.extras import requires_extra
from edge_medgemma.runtime.commands.progress import progress_bar
from edge_medgemma.runtime.errors import ResourceError

if TYPE_CHECKING:
    from rich.table import Table

    from edge_medgemma.export.verification.comparison import CaseComparison
    from edge_medgemma.export.verification.verdict import Thresholds, Verdict
    from edge_medgemma.runtime.manifest import Manifest
    from edge_medgemma.runtime.parity import Parity


@click.command(name="verify")
@click.argument("engine", type=click.Path(path_type=Path))
@click.option(
    "--checkpoint",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of the Hugging Face checkpoint that the engine was exported from.",
)
@click.option(
    "--lora",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of the PEFT adapter that the engine was exported with.",
)
@click.option(
    "--max-kl",
    type=click.FloatRange(min=0, min_open=True),
    help="Nats that a prompt may lose, in place of the precision's limits on KL, top-1 and answers.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the engine.")
def command(
    engine: Path,
    checkpoint: Path,
    lora: Path | None,
    max_kl: float | None,
    as_json: bool,
    threads: int | None,
) -> None:
    """Compare an engine with transformers on its checkpoint.

    Text, one image, three images and a prompt longer than the sliding window: the checkpoint's own
    processor and model (eager attention, float32) on one side, ENGINE on the other. Token ids, pixel
    values, image features, logits and greedy answers are compared in this order; exit status 1, with
    the first stage past its limit, where they differ by more than ENGINE's precision may. The worst
    of each figure is left in ENGINE/parity.json, for the benchmark.

    Example: edge-medgemma verify engines/medgemma --checkpoint medgemma-1.5-4b-it
    """
    with requires_extra("cpu,verify"):
        from edge_medgemma.export.verification.run import computed_precision, verify_engine
        from edge_medgemma.export.verification.verdict import judge, require_pass, thresholds_for
        from edge_medgemma.runtime.generation.engine import Engine
        from edge_medgemma.runtime.parity import PARITY_NAME, write_parity

    with Engine.open(engine, threads=threads) as opened, progress_bar("comparing") as update:
        manifest = opened.manifest
        comparisons = verify_engine(opened, checkpoint, adapter=lora, on_progress=update)
        thresholds = thresholds_for(computed_precision(opened), max_kl)
    verdict = judge(comparisons, thresholds)
    _print(_Report(verdict, thresholds, comparisons, _calibrated_loss(manifest)), as_json)
    try:
        write_parity(engine, _parity(comparisons, verdict, manifest.sha256))
    except ResourceError as error:
        click.echo(f"note: no {PARITY_NAME}: {error}", err=True)
    require_pass(verdict, thresholds)


@dataclass(frozen=True, slots=True)
class _Report:
    verdict: "Verdict"
    thresholds: "Thresholds"
    prompts: tuple["CaseComparison", ...]
    calibrated_loss: dict[str, Any] | None
    """What the export measured"""


def _calibrated_loss(manifest: "Manifest") -> dict[str, Any] | None:
    loss = (manifest.calibration or {}).get("loss")
    return loss if isinstance(loss, dict) else None


def _print(report: _Report, as_json: bool) -> None:
    from edge_medgemma.runtime.commands.tables import print_table
    from edge_medgemma.runtime.documents import dump_json
    from edge_medgemma.runtime.parity import HELD_OUT_TEXT

    if as_json:
        click.echo(dump_json(report), nl=False)
        return
    print_table(_table(report.prompts))
    loss = report.calibrated_loss
    if loss is not None:
        seen = (
            f"{loss['prompts']} prompts of held-out slices and the first token of each answer"
            if "prompts" in loss
            else f"{loss['positions']} positions of {HELD_OUT_TEXT}"
        )
        click.echo(
            f"at export: KL {loss['kl_nats']:.2e} nats, top-1 {loss['top1_agreement']:.1%}, on "
            f"{seen}; here other pictures and texts, and whole answers"
        )
    if report.verdict.is_pass:
        click.echo(f"pass: within the limits of {_limits(report.thresholds)}")


def _limits(thresholds: "Thresholds") -> str:
    words = [f"{thresholds.precision}: KL at most {thresholds.max_kl_nats:g} nats"]
    if thresholds.min_top1_agreement is not None:
        words.append(f"top-1 without ties at least {thresholds.min_top1_agreement:.0%}")
    words.append(f"image cosine at least {thresholds.min_image_cosine:g}")
    return ", ".join(words)


def _parity(
    comparisons: tuple["CaseComparison", ...], verdict: "Verdict", manifest_sha256: str
) -> "Parity":
    from edge_medgemma.runtime.parity import Parity

    logits = [one.logits for one in comparisons if one.logits is not None]
    return Parity(
        manifest_sha256=manifest_sha256,
        reference=f"transformers {version('transformers')}, float32",
        failed_stage=verdict.stage,
        kl_nats=_finite(max((one.kl_nats for one in logits), default=None)),
        top1_agreement=_finite(min((one.top1_agreement for one in logits), default=None)),
        image_cosine=_finite(_smallest(one.image_cosine for one in comparisons)),
    )


def _smallest(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _table(comparisons: tuple["CaseComparison", ...]) -> "Table":
    from rich.table import Table

    from edge_medgemma.export.verification.run import GREEDY_TOKENS

    table = Table(caption=f"logits at {GREEDY_TOKENS} positions after each prompt")
    columns = ("prompt", "tokens", "ids", "Δpixel", "cosine", "KL nats", "top-1", "greedy")
    for column in columns:
        table.add_column(column, justify="left" if column == "prompt" else "right")
    for one in comparisons:
        table.add_row(*_cells(one))
    return table


def _cells(one: "CaseComparison") -> list[str]:
    cells = [one.prompt, str(one.tokens)]
    cells.append("equal" if one.id_difference is None else f"≠ at {one.id_difference.position}")
    cells.append("" if one.pixel_difference is None else f"{one.pixel_difference:.1e}")
    cells.append("" if one.image_cosine is None else f"{one.image_cosine:.6f}")
    logits, greedy = one.logits, one.greedy
    if logits is None or greedy is None:
        return [*cells, *["–"] * 3]
    return [
        *cells,
        f"{logits.kl_nats:.1e}",
        f"{logits.top1_agreement:.1%}",
        f"{greedy.equal}/{greedy.tokens}",
    ]
