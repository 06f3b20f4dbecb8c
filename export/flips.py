"""Outcomes of triage that an engine changes, against the float32 engine of the same checkpoint.

A loss in nats says little to a clinic; a finding that is flagged before and not after says all.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from edge_medgemma.calibration.evaluation.assessment import assess
from edge_medgemma.calibration.evaluation.cases import Case, case_of
from edge_medgemma.calibration.evaluation.records import Outcome
from edge_medgemma.export.checkpoint.checkpoint import Checkpoint
from edge_medgemma.export.engine import export_engine
from edge_medgemma.export.quantisation.quant_scheme import default_block_size
from edge_medgemma.export.target import CPU
from edge_medgemma.runtime.backends.select import Provider, Providers
from edge_medgemma.runtime.commands.progress import OnStage
from edge_medgemma.runtime.errors import ParityError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.slicing.scan import find_series
from edge_medgemma.runtime.slicing.volume import ScanListing
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.worklist import plan_studies


@dataclass(frozen=True, slots=True)
class FlipCount:
    """What became of the outcomes."""

    changed: int
    outcomes: int
    """Of findings that at least one of the engines could assess"""
    studies: int

    def __str__(self) -> str:
        return f"{self.changed} of {self.outcomes} outcomes changed on {self.studies} studies"


class FlipCheck:
    """Refuses an engine that changes more outcomes than are allowed."""

    def __init__(self, checkpoint: Checkpoint, scans: Path, most: int) -> None:
        """Read the headers of the scans, so that what cannot be read is known before an export.

        Args:
            checkpoint: of the engine.
            scans: labelled or not; nothing but outcomes is compared.
            most: changed outcomes that are allowed.

        Raises:
            ScanError: no scan can be read.
        """
        self._checkpoint = checkpoint
        self._listing = find_series(scans)
        self._most = most
        self.count: FlipCount | None = None
        """None until an engine was checked."""

    def __call__(self, engine: Path, on_stage: OnStage | None = None) -> None:
        """Triage the scans with both engines, the float32 one in a folder that is deleted.

        Args:
            engine: directory that has the new engine's weights and that a CPU runs.
            on_stage: called with what is done now, and how much of how much.

        Raises:
            ParityError: too many outcomes differ, or none could be compared.
        """
        with tempfile.TemporaryDirectory(dir=engine, prefix=".float32.") as name:
            reference = Path(name) / "engine"
            export_engine(
                self._checkpoint,
                reference,
                precision="fp32",
                block_size=default_block_size(self._checkpoint.text, "fp32"),
                target=CPU,
            )
            baselines = Path(name) / "baselines"
            before = self._outcomes("triage in float32", reference, baselines, on_stage)
            after = self._outcomes("triage", engine, baselines, on_stage)
        pairs = [(before[key], after[key]) for key in before.keys() & after.keys()]
        compared = [pair for pair in pairs if set(pair) != {Outcome.NOT_ASSESSABLE}]
        studies = {series.study_uid or series.series_uid for series in self._listing.series}
        changed = sum(first is not second for first, second in compared)
        self.count = FlipCount(changed, len(compared), len(studies))
        if not compared:
            raise ParityError(
                f"no outcome of {len(studies)} studies could be compared: neither engine could assess "
                "any; give --flips-on scans that 'edge-medgemma triage' assesses"
            )
        if changed > self._most:
            raise ParityError(
                f"{self.count} against the float32 engine, more than {self._most}; choose a finer "
                "--precision, or allow more with --require-no-flips"
            )

    def _outcomes(
        self, label: str, directory: Path, baselines: Path, on_stage: OnStage | None
    ) -> dict[tuple[str, str], Outcome]:
        """Outcome by case and finding."""
        options = TriageOptions(baseline_folder=baselines)
        providers = Providers(Provider.CPU, Provider.CPU)
        found = {}
        with Engine.open(directory, providers=providers, check_files=False) as engine:
            cases = _cases(self._listing, engine)
            for done, case in enumerate(cases, start=1):
                for answer in assess(engine, case, options, None).result.answers:
                    found[case.key, answer.code] = answer.outcome
                if on_stage is not None:
                    on_stage(label, done, len(cases))
        return found


def _cases(listing: ScanListing, engine: Engine) -> list[Case]:
    return [case_of(task) for task in plan_studies(listing, None, None, engine.manifest.scope)]
