"""`edge-medgemma thresholds`: the point at which an engine flags, from an evaluation of it."""

from pathlib import Path

import click
from rich.table import Table

from edge_medgemma.calibration.evaluation.document import EvaluationDocument
from edge_medgemma.calibration.evaluation.fitting import FITS
from edge_medgemma.calibration.evaluation.predictions import read_predictions
from edge_medgemma.calibration.evaluation.thresholds import FittedThresholds, fit_thresholds
from edge_medgemma.runtime.commands.sanitize import printable
from edge_medgemma.runtime.commands.tables import print_table
from edge_medgemma.runtime.documents import parse_json
from edge_medgemma.runtime.errors import ThresholdError
from edge_medgemma.runtime.manifest import load_manifest
from edge_medgemma.runtime.triage.scoring.operating_points import (
    THRESHOLDS_NAME,
    OperatingPoint,
    Rate,
    Split,
    Target,
    dump_operating_points,
    write_operating_points,
)

_SHARE = click.FloatRange(min=0, max=1, min_open=True, max_open=True)

_HOW = {
    Split.CROSS_FITTED: "cross-fitted: each patient by a threshold that was fitted on others",
    Split.HELD_OUT: "on the half of the patients that took no part in the fit",
}


@click.command(epilog="Example: edge-medgemma thresholds evaluation/ --sensitivity 0.9")
@click.argument("evaluation", type=click.Path(path_type=Path))
@click.option(
    "--sensitivity", type=_SHARE, required=True,
    help="Least share of patients with the finding that should be flagged.",
)  # fmt: skip
@click.option(
    "--confidence", type=_SHARE, default=0.95, show_default=True,
    help="Of its being so, by the exact binomial distribution.",
)  # fmt: skip
@click.option(
    "--finding", "findings", multiple=True, metavar="CODE",
    help="Only this one; may be repeated.  [default: all that are labelled]",
)  # fmt: skip
@click.option(
    "--split", type=click.Choice(tuple(FITS)), default="cross", show_default=True,
    help="cross fits on all patients and reports each by a fit without them; half fits on one half and "
    "reports the other.",
)  # fmt: skip
@click.option(
    "--engine", "engine_directory", type=click.Path(path_type=Path), metavar="DIR",
    help="Refuse an evaluation of any other engine.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help=f"File to write; one that is there is replaced.  [default: {THRESHOLDS_NAME} in EVALUATION]",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the file instead of a table.")
def command(
    evaluation: Path,
    sensitivity: float,
    confidence: float,
    findings: tuple[str, ...],
    split: str,
    engine_directory: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Fit the thresholds of an engine on an evaluation of it.

    EVALUATION is a folder that 'edge-medgemma evaluate' wrote. The threshold of a finding is the
    largest that has the sensitivity with the confidence, whatever the distribution of the scores.
    """
    document = _read_document(evaluation)
    if engine_directory is not None:
        _check_engine(document, engine_directory)
    predictions = read_predictions(evaluation / "predictions.csv")
    target = Target(sensitivity, confidence)
    fitted = fit_thresholds(document, predictions, target, split, findings)
    path = out or evaluation / THRESHOLDS_NAME
    write_operating_points(fitted.points, path)
    for line in fitted.refused:
        click.echo(f"note: no threshold: {printable(line)}", err=True)
    if as_json:
        click.echo(dump_operating_points(fitted.points), nl=False)
    else:
        _print(fitted, path)


def _read_document(folder: Path) -> EvaluationDocument:
    path = folder / "evaluation.json"
    try:
        return parse_json(path.read_bytes(), EvaluationDocument)
    except OSError as error:
        raise ThresholdError(
            f"cannot read '{path}' ({error.strerror or error}); expected a folder that 'edge-medgemma "
            "evaluate' wrote"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ThresholdError(
            f"'{path}' is damaged or of another version ({error}); evaluate again"
        ) from None


def _check_engine(document: EvaluationDocument, directory: Path) -> None:
    found, expected = document.provenance.engine.manifest_sha256, load_manifest(directory).sha256
    if found != expected:
        raise ThresholdError(
            f"the evaluation is of another engine ({found[:12]}, '{directory}' is {expected[:12]}); "
            "evaluate that one"
        )


def _print(fitted: FittedThresholds, path: Path) -> None:
    table = Table("finding", "threshold", "fitted on", "reported on", "sensitivity", "specificity")
    table.columns[0].no_wrap = True
    entries = fitted.points.protocols
    for entry in entries:
        for point in entry.findings:
            name = point.finding if len(entries) == 1 else f"{entry.protocol}: {point.finding}"
            table.add_row(printable(name), *_cells(point))
    target = entries[0].findings[0].target
    assert target is not None
    split = entries[0].findings[0].split
    print_table(
        table,
        f"Asked for: sensitivity at least {target.sensitivity:g} with confidence {target.confidence:g}."
        f" Reported {_HOW[split]}.",
        "Threshold: log-odds at or above which a finding is flagged. Patients with (+) and without (−) "
        "it; 95 % intervals (Wilson).",
        f"thresholds: {path}; 'triage --thresholds' takes them, or a copy in the engine directory",
    )


def _cells(point: OperatingPoint) -> tuple[str, ...]:
    samples = (point.fitted_on, point.measured_on)
    return (
        f"{point.threshold:+.3f}",
        *(f"{one.positives} +, {one.negatives} −" for one in samples),
        _rate_words(point.sensitivity),
        _rate_words(point.specificity),
    )


def _rate_words(rate: Rate) -> str:
    shares = f"{rate.value:.3f} ({rate.low:.3f}-{rate.high:.3f})"
    return f"{rate.successes} of {rate.trials}\n{shares}"
