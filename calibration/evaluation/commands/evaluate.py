"""`edge-medgemma evaluate`: what an engine is worth on labelled scans."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from edge_medgemma.calibration.evaluation.attributes import ATTRIBUTES
from edge_medgemma.calibration.evaluation.commands.evaluation_table import print_evaluation
from edge_medgemma.calibration.evaluation.datasets.registry import LAYOUTS
from edge_medgemma.calibration.evaluation.evaluate import Inputs, evaluate
from edge_medgemma.calibration.evaluation.page import PAGE_NAME
from edge_medgemma.calibration.evaluation.predictions import PREDICTIONS_NAME
from edge_medgemma.calibration.evaluation.requirements import Demand, parse_demand, unmet_words
from edge_medgemma.calibration.evaluation.run import EngineChoice
from edge_medgemma.calibration.evaluation.summary import SummaryOptions
from edge_medgemma.runtime.backends.select import Providers
from edge_medgemma.runtime.commands.options import (
    engine_option,
    modality_option,
    protocol_option,
    provider_option,
    slices_option,
    threads_option,
    thresholds_option,
)
from edge_medgemma.runtime.commands.progress import named_progress
from edge_medgemma.runtime.commands.sanitize import printable
from edge_medgemma.runtime.documents import dump_json
from edge_medgemma.runtime.slicing.volume import Modality
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.protocol import Protocol
from edge_medgemma.runtime.triage.report import Effort

SUBCOMMANDS: Mapping[str, str] = {
    "vqa": "edge_medgemma.calibration.evaluation.commands.vqa",
    "reports": "edge_medgemma.calibration.evaluation.commands.reports",
    "safety": "edge_medgemma.calibration.evaluation.commands.safety",
    "injection": "edge_medgemma.calibration.evaluation.commands.injection",
}
"""First word -> module that defines a click command called `command`; any other word is SCANS."""

EPILOG = """\b
Examples:
  edge-medgemma evaluate scans/ --labels labels.csv
  edge-medgemma evaluate scans/ --labels labels.csv --compare int4/ --by manufacturer,age
  edge-medgemma evaluate scans/ --labels labels.csv --require "sensitivity_low(skull_fracture)>=0.8"
"""

INTERRUPTED = 130


class _EvaluateGroup(click.Group):
    """Evaluates SCANS unless the first word names a sub-command, which is imported then."""

    allow_interspersed_args = True
    allow_extra_args = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        found: click.Command = import_module(SUBCOMMANDS[cmd_name]).command
        return found

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        if args and args[0] in SUBCOMMANDS:
            found: click.Command = import_module(SUBCOMMANDS[args[0]]).command
            return found.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return click.Command.parse_args(self, ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        return click.Command.invoke(self, ctx)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return click.Command.collect_usage_pieces(self, ctx)


def _attributes(_: click.Context, __: click.Parameter, words: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    for name in names:
        if name not in ATTRIBUTES:
            raise click.BadParameter(f"'{name}' is not one of {', '.join(ATTRIBUTES)}")
    return names


def _demands(_: click.Context, __: click.Parameter, words: tuple[str, ...]) -> tuple[Demand, ...]:
    return tuple(map(parse_demand, words))


def _prevalences(
    _: click.Context, __: click.Parameter, words: tuple[str, ...]
) -> Mapping[str, float]:
    found = {}
    for word in words:
        code, _sign, number = word.rpartition("=")
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if not 0 < share < 1:
            raise click.BadParameter(f"'{word}': expected 0.02 or FINDING=0.02, between 0 and 1")
        found[code.strip()] = share
    return found


@click.command(cls=_EvaluateGroup, invoke_without_command=True, epilog=EPILOG)
@click.argument("scans", type=click.Path(path_type=Path))
@click.option(
    "--labels", type=click.Path(path_type=Path), metavar="FILE",
    help="Table of what is present, or the dataset's folder.  [default: SCANS]",
)  # fmt: skip
@click.option(
    "--dataset", type=click.Choice(list(LAYOUTS)), default="table", show_default=True,
    help="How labels and scans lie on disk; table is a CSV of your own with a column study and one "
    "of 1, 0 or nothing for each finding; none only triages.",
)  # fmt: skip
@engine_option
@click.option(
    "--compare", type=click.Path(path_type=Path), metavar="DIR",
    help="A second engine on the same scans, in pairs: flips, McNemar, change of log-odds and AUC.",
)  # fmt: skip
@protocol_option
@modality_option
@click.option(
    "--by", "attributes", default="", callback=_attributes, metavar="NAME,NAME",
    help=f"Figures of subgroups as well: {', '.join(ATTRIBUTES)}.",
)  # fmt: skip
@click.option(
    "--reference", default="majority", show_default=True, metavar="majority|any|reader:NAME",
    help="Which of several readers is believed.",
)  # fmt: skip
@click.option(
    "--prevalence", "prevalences", multiple=True, callback=_prevalences, metavar="[FINDING=]SHARE",
    help="How frequent a finding is where the engine will be used: gives predictive values.",
)  # fmt: skip
@click.option(
    "--require", "demands", multiple=True, callback=_demands, metavar="FIGURE(FINDING)>=SHARE",
    help="Exit with 1 below it: sensitivity, specificity or auc, or the lower end of its interval, as "
    "sensitivity_low. May be repeated.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("evaluation"),
    show_default=True, help="Folder of all results; an evaluation that was stopped goes on there.",
)  # fmt: skip
@thresholds_option
@slices_option
@click.option(
    "--effort", type=click.Choice([e.value for e in Effort]), default=Effort.FAST.value,
    show_default=True, help="reasoned: the model reasons in words first; minutes per finding.",
)  # fmt: skip
@provider_option
@threads_option
@click.option(
    "--ray", "cluster", metavar="ADDRESS",
    help="Triage on a Ray cluster that sees SCANS and engine under the same paths: host:port of its head, "
    "auto on one of its nodes, or local.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the document instead of tables.")
def command(
    scans: Path,
    labels: Path | None,
    dataset: str,
    engine_directory: Path,
    compare: Path | None,
    protocol: Protocol | None,
    modality: Modality | None,
    attributes: tuple[str, ...],
    reference: str,
    prevalences: Mapping[str, float],
    demands: tuple[Demand, ...],
    out: Path,
    thresholds: Path | None,
    slices: int | None,
    effort: str,
    providers: Providers,
    threads: int | None,
    cluster: str | None,
    as_json: bool,
) -> None:
    """Triage labelled scans and count what the engine finds, misses and flags wrongly.

    SCANS is a folder of DICOM or NIfTI files. Every study is triaged once; what could not be assessed
    counts against the engine. Writes the page evaluation.html, evaluation.json, predictions.csv and the
    pictures of wrong answers.
    """
    inputs = Inputs(
        scans=scans,
        labels=labels or scans,
        dataset=dataset,
        reference=reference,
        engine=EngineChoice(engine_directory, providers, threads, cluster),
        other=None if compare is None else EngineChoice(compare, providers, threads, cluster),
        out=out,
    )
    triage = TriageOptions(
        protocol=protocol,
        slices=slices,
        modality=modality,
        effort=Effort(effort),
        thresholds=thresholds,
    )
    summary = SummaryOptions(
        effort=triage.effort,
        slices=slices,
        reference=reference,
        attributes=attributes,
        prevalences=prevalences,
        demands=demands,
    )
    try:
        with named_progress("reading labels") as on_progress:
            document = evaluate(inputs, triage, summary, on_progress)
    except KeyboardInterrupt:
        click.echo(f"interrupted; the same command goes on with what is in {out}", err=True)
        raise SystemExit(INTERRUPTED) from None
    if document.provenance.engine.notice:
        click.echo(f"note: {printable(document.provenance.engine.notice)}", err=True)
    if as_json:
        click.echo(dump_json(document), nl=False)
    else:
        print_evaluation(document)
        click.echo(
            f"evaluation: {out / PAGE_NAME}, one row a study and finding: {PREDICTIONS_NAME}"
        )
    unmet = unmet_words(document)
    for line in unmet:
        click.echo(f"error: {printable(line)}", err=True)
    if unmet:
        raise SystemExit(1)
