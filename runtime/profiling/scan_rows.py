"""Rows of whole scans: a folder of DICOM files to triage.json.

`ctN cold`: the engine is opened inside the clock and nothing is known of earlier scans, so the
blank control is read too, and the scan cache is written. `ctN cached`: the same scan once more, from
the scan cache. `ctN warm`: the engine is open and the control known, as for the second scan of a
day; no scan cache. The scans are synthetic, see `synthetic_ct.py`.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp

from edge_medgemma.runtime.backends.select import Providers
from edge_medgemma.runtime.domain import without_scope
from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.host import available_bytes
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.memory.host_memory import (
    DEFAULT_SHAPE,
    require_memory,
)
from edge_medgemma.runtime.profiling.distribution import Distribution
from edge_medgemma.runtime.profiling.meter import Measured, Meter
from edge_medgemma.runtime.profiling.record import Layer, Row
from edge_medgemma.runtime.profiling.synthetic_ct import write_synthetic_ct
from edge_medgemma.runtime.reporting.json_report import write_json_report
from edge_medgemma.runtime.store.scan_cache import ScanCache
from edge_medgemma.runtime.tracing.spans import SpanRecorder, total_s
from edge_medgemma.runtime.tracing.trace_file import nested
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.report import TriageReport
from edge_medgemma.runtime.triage.triage_scan import triage_scan


@dataclass(frozen=True, slots=True)
class ScanRun:
    """One repetition."""

    ttff_s: float
    """Seconds from the start to the first score."""
    stages_s: dict[str, float]


class ScanBench:
    """Triage of synthetic scans with one engine."""

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        providers: Providers,
        threads: int,
        work_folder: Path,
    ) -> None:
        """`work_folder` is for scans, controls and reports; emptied by whoever made it."""
        self._directory = directory
        self._manifest = manifest
        self._providers = providers
        self._threads = threads
        self._folder = work_folder
        self._kept: dict[int, Path] = {}
        """Folders that cold scans left behind, by number of slices."""

    def cold(self, slices: int, meter: Meter) -> Row:
        """Opened inside the clock, nothing kept of earlier scans.

        Raises:
            ResourceError: there is too little memory for so many slices.
        """
        require_memory(self._manifest, slices, DEFAULT_SHAPE, available_bytes())
        self._scan(slices)

        def run() -> ScanRun:
            self._kept[slices] = Path(mkdtemp(dir=self._folder))
            recorder = SpanRecorder()
            with recorder.span("open"):
                engine = self._open(recorder)
            with engine:
                return self._triage(engine, slices, recorder, self._scan_cache(slices))

        before = "open the engine, blank control, writing the scan cache, "
        row = _row(slices, "cold", before)
        return _finished(meter.measure(row, run))

    def warm(self, slices: int, meter: Meter) -> Row:
        """The engine is open and the control known; `cold` came before.

        Raises:
            ResourceError: it did not.
        """
        self._require_cold(slices)
        with self._open(SpanRecorder(0)) as engine:
            row = _row(slices, "warm", "")
            measured = meter.measure(row, lambda: self._triage(engine, slices, SpanRecorder()))
        return _finished(measured)

    def cached(self, slices: int, meter: Meter) -> Row:
        """The scan that `cold` has just read, by an engine that was open.

        Raises:
            ResourceError: `cold` was not measured, or could not keep the scan.
        """
        self._require_cold(slices)
        cache = self._scan_cache(slices)
        with self._open(SpanRecorder(0)) as engine:
            row = _row(slices, "cached", "slices and prefix from the scan cache; ")
            measured = meter.measure(
                row, lambda: self._triage(engine, slices, SpanRecorder(), cache)
            )
        if any("vision" in run.stages_s for run in measured.results):
            raise ResourceError("the scan cache did not keep the scan; is the disk full?")
        return _finished(measured)

    def _require_cold(self, slices: int) -> None:
        if slices not in self._kept:
            raise ResourceError(f"ct{slices} cold was not measured, which it builds on")

    def _scan_cache(self, slices: int) -> ScanCache:
        return ScanCache(self._kept[slices] / "scans")

    def _scan(self, slices: int) -> Path:
        scan = self._folder / f"ct{slices}"
        return scan if scan.exists() else write_synthetic_ct(scan, slices, seed=0)

    def _open(self, recorder: SpanRecorder) -> Engine:
        engine = Engine.open(
            self._directory, threads=self._threads, providers=self._providers, recorder=recorder
        )
        # The demo engine would not answer about a scan that is unlike its own; this one is measured.
        engine.manifest = without_scope(engine.manifest)
        return engine

    def _triage(
        self,
        engine: Engine,
        slices: int,
        recorder: SpanRecorder,
        scan_cache: ScanCache | None = None,
    ) -> ScanRun:
        start_s = recorder.spans[0].start_s if recorder.spans else time.perf_counter()
        options = TriageOptions(
            slices=slices, baseline_folder=self._kept[slices], scan_cache=scan_cache
        )
        report = triage_scan(engine, self._scan(slices), options)
        _require_success(report)
        with recorder.span("write"):
            write_json_report(report, self._folder / "triage.json")
        spans = nested((*recorder.spans, *report.all_spans))
        first_score_s = next(span.stop_s for span in spans if span.name == "score")
        return ScanRun(first_score_s - start_s, total_s(spans))


def _row(slices: int, state: str, before: str) -> Row:
    return Row(
        name=f"ct{slices} {state}",
        layer=Layer.END_TO_END,
        includes=f"{before}discover, decode, vision, prefill, all findings, key slices, triage.json",
        slices=slices,
    )


def _require_success(report: TriageReport) -> None:
    """A scan that failed was fast for the wrong reason."""
    for study in report.studies:
        for problem in study.problems:
            if problem.name == "triage_failed":
                raise ResourceError(problem.detail)


def _finished(measured: Measured[ScanRun]) -> Row:
    run = measured.results[measured.middle]
    return replace(
        measured.row,
        ttff=Distribution.of([run.ttff_s for run in measured.results]),
        stages_s=_with_rest(run.stages_s, measured.samples_s[measured.middle]),
    )


def _with_rest(stages_s: dict[str, float], total_s: float) -> dict[str, float]:
    return {**stages_s, "other": max(total_s - sum(stages_s.values()), 0.0)}
