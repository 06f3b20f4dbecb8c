"""Cost of looking at fewer slices: coarse pass, `--slices auto` and all slices on unseen phantoms.

python -m edge_medgemma.calibration.phantoms.anytime --count 100
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
from rich.table import Table

from edge_medgemma.calibration.phantoms.anatomy import FINDINGS
from edge_medgemma.calibration.phantoms.dicom import write_dicom_series
from edge_medgemma.calibration.phantoms.drawing import draw_phantom
from edge_medgemma.calibration.phantoms.seeds import EVALUATION_FIRST_SEED
from edge_medgemma.runtime.commands.options import engine_option, threads_option
from edge_medgemma.runtime.commands.progress import progress_bar
from edge_medgemma.runtime.commands.tables import print_table
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.protocol import load_protocol
from edge_medgemma.runtime.triage.report import StudyReport, TriageReport
from edge_medgemma.runtime.triage.triage_scan import triage_scan

MODES = ("coarse", "auto", "all")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one way of looking at one phantom."""

    drawn: frozenset[str]
    flagged: frozenset[str]
    slices: int
    duration_s: float


def look_at_phantom(engine: Engine, seed: int, controls: Path) -> dict[str, Outcome]:
    """Triage one phantom in every mode, as a user would; by mode."""
    phantom = draw_phantom(seed)
    options = TriageOptions(protocol=load_protocol("head_ct"), baseline_folder=controls)
    with tempfile.TemporaryDirectory() as folder:
        write_dicom_series(phantom, Path(folder))
        passes: list[tuple[TriageReport, float]] = []
        start_s = time.perf_counter()
        triage_scan(
            engine,
            Path(folder),
            replace(options, until_settled=True),
            on_report=lambda report: passes.append((report, time.perf_counter() - start_s)),
        )
        restart_s = time.perf_counter()
        everything = triage_scan(engine, Path(folder), options)
        all_s = time.perf_counter() - restart_s
    reports = (passes[0], passes[-1], (everything, all_s))
    return {
        mode: _outcome(phantom.findings, report.studies[0], seconds)
        for mode, (report, seconds) in zip(MODES, reports, strict=True)
    }


def _outcome(drawn: frozenset[str], study: StudyReport, duration_s: float) -> Outcome:
    flagged = frozenset(finding.code for finding in study.flagged)
    return Outcome(drawn, flagged, len(study.slices), duration_s)


@click.command()
@engine_option
@click.option("--count", type=click.IntRange(min=2), default=100, show_default=True)
@threads_option
def command(engine_directory: Path, count: int, threads: int | None) -> None:
    """Compare a coarse pass, --slices auto and all slices on COUNT unseen phantoms."""
    seeds = range(EVALUATION_FIRST_SEED, EVALUATION_FIRST_SEED + count)
    with (
        Engine.open(engine_directory, threads=threads) as engine,
        tempfile.TemporaryDirectory() as controls,
        progress_bar("triaging phantoms") as update,
    ):
        look_at_phantom(engine, seeds[0], Path(controls))  # loads, warms up
        outcomes = []
        for done, seed in enumerate(seeds, start=1):
            outcomes.append(look_at_phantom(engine, seed, Path(controls)))
            update(done, count)
    _print(outcomes)


def _print(outcomes: Sequence[dict[str, Outcome]]) -> None:
    table = Table("looked at", "slices", "time", *(f"{c}: sens / spec" for c in FINDINGS))
    complete = [one["all"] for one in outcomes]
    for mode in MODES:
        mine = [one[mode] for one in outcomes]
        slices = sum(one.slices for one in mine) / sum(one.slices for one in complete)
        seconds = sum(one.duration_s for one in mine) / sum(one.duration_s for one in complete)
        cells = [_rates(mine, code) for code in FINDINGS]
        table.add_row(mode, f"{100 * slices:.0f} %", f"{100 * seconds:.0f} %", *cells)
    print_table(table, "Slices and time as a share of looking at all of the protocol's slices.")


def _rates(outcomes: Sequence[Outcome], code: str) -> str:
    hits = [code in one.flagged for one in outcomes if code in one.drawn]
    passes = [code not in one.flagged for one in outcomes if code not in one.drawn]
    return f"{sum(hits)}/{len(hits)}  {sum(passes)}/{len(passes)}"


if __name__ == "__main__":
    command()
