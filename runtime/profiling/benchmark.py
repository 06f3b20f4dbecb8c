"""The benchmark: every row of a suite, measured on one engine and one machine."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from edge_medgemma import __version__
from edge_medgemma.runtime.backends.select import Provider, Providers
from edge_medgemma.runtime.generation.embedding import Embedding
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.host import available_bytes
from edge_medgemma.runtime.manifest import Manifest, load_manifest
from edge_medgemma.runtime.memory.host_memory import TOKENS_OF_TEXT, require_context_memory
from edge_medgemma.runtime.parity import parity_words
from edge_medgemma.runtime.profiling.cold_start import ColdStart
from edge_medgemma.runtime.profiling.component_rows import (
    PROMPT_TOKENS,
    context_tokens,
    decoder_row_names,
    decoder_rows,
    depths_for,
    vision_row,
)
from edge_medgemma.runtime.profiling.cpu_contention import BackgroundLoad
from edge_medgemma.runtime.profiling.machine import read_machine
from edge_medgemma.runtime.profiling.meter import Limits, Meter
from edge_medgemma.runtime.profiling.peaks import measure_peaks, peaks_of_device
from edge_medgemma.runtime.profiling.power import find_power_readers
from edge_medgemma.runtime.profiling.record import (
    SCHEMA_VERSION,
    Benchmark,
    EngineUnderTest,
    Layer,
    Row,
    Settings,
)
from edge_medgemma.runtime.profiling.roofline import Peaks
from edge_medgemma.runtime.profiling.scan_rows import ScanBench
from edge_medgemma.runtime.store.integrity import check_engine
from edge_medgemma.runtime.store.ownership import make_own_folder
from edge_medgemma.runtime.store.places import Place
from edge_medgemma.runtime.thermal import read_thermal

SCAN_SLICES = (8, 32, 85)

SCAN_OVERHEAD = 1.2
"""A scan takes longer than its slices by so much: loading, questions, key slices."""

OnRow = Callable[[str, int, int], None]
"""Called with what is measured next, the groups done and the groups in all."""


@dataclass(frozen=True, slots=True)
class Suite:
    """How thorough a run is."""

    repeat: int
    row_minimum_s: float
    row_maximum_s: float
    total_s: float
    """No row is begun that would, by what was measured before, end later than this."""


SUITES = {
    "quick": Suite(repeat=3, row_minimum_s=1.0, row_maximum_s=40.0, total_s=540.0),
    "full": Suite(repeat=5, row_minimum_s=5.0, row_maximum_s=3600.0, total_s=float("inf")),
}


@dataclass(frozen=True, slots=True)
class Request:
    """Engine and settings of a run."""

    directory: Path
    providers: Providers
    threads: int
    suite: str
    repeat: int | None = None
    """At least; instead of the suite's number and least time of a row."""
    started_s: float = field(default_factory=time.perf_counter)
    """When the command began, on the clock of `time.perf_counter`."""


def run_benchmark(request: Request, on_row: OnRow) -> Benchmark:
    """Measure every row; a row that cannot be measured says why, and the others go on.

    Raises:
        EngineError: the engine is missing or altered.
    """
    manifest = load_manifest(request.directory)
    check_engine(request.directory, manifest)
    suite = SUITES[request.suite]
    limits = Limits(
        repeat=request.repeat or suite.repeat,
        row_minimum_s=0.0 if request.repeat else suite.row_minimum_s,
        row_maximum_s=suite.row_maximum_s,
    )
    machine, thermal = read_machine(), read_thermal()
    power, load = find_power_readers(), BackgroundLoad()
    try:
        # Not in /tmp, which is memory on many devices: the scan cache of 85 slices is a gigabyte.
        parent = Place.BENCHMARKS.folder
        make_own_folder(parent)
        with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=parent) as folder:
            run = _Run(request, manifest, suite, Meter(limits, power), Path(folder))
            rows = tuple(run.rows(on_row))
    finally:
        power.close()
    return Benchmark(
        schema_version=SCHEMA_VERSION,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        program_version=__version__,
        wall_s=time.perf_counter() - request.started_s,
        engine=_engine(request.directory, manifest),
        settings=Settings(
            suite=request.suite,
            repeat=limits.repeat,
            threads=request.threads,
            providers={
                "vision": run.vision_provider,
                "decoder": run.decoder_provider,
            },
        ),
        machine=machine,
        others_share=load.share(),
        peaks=run.peaks,
        thermal_before=thermal,
        thermal_after=read_thermal(),
        power=power.words,
        rows=rows,
        device_peaks=run.device_peaks,
    )


class _Run:
    """The groups of rows in order: what one group holds in memory is gone before the next."""

    def __init__(
        self, request: Request, manifest: Manifest, suite: Suite, meter: Meter, folder: Path
    ) -> None:
        self.peaks = measure_peaks(manifest, request.threads)
        self.device_peaks: Peaks | None = None
        self._request = request
        self._manifest = manifest
        self._deadline_s = request.started_s + suite.total_s
        self._meter = meter
        where = request.directory, manifest, request.providers, request.threads, folder
        self._scans = ScanBench(*where)
        self._cold_start = ColdStart(*where)
        self.vision_provider = request.providers.vision
        self.decoder_provider = request.providers.decoder
        self._median_s: dict[str, float] = {}

    def rows(self, on_row: OnRow) -> Iterator[Row]:
        """Every row: the customary shapes first, the longest last."""
        groups = self._groups()
        for done, group in enumerate(groups):
            on_row(", ".join(group.names), done, len(groups))
            yield from self._group(group)
        on_row("", len(groups), len(groups))

    def _groups(self) -> list["_Group"]:
        depths = depths_for(self._manifest, with_long=self._request.suite == "full")
        short, *long = SCAN_SLICES
        return [
            _Group(("cold start",), Layer.END_TO_END, lambda: [self._cold_start.row()]),
            self._vision_group(1),
            _Group(decoder_row_names(depths), Layer.COMPONENT, lambda: self._decoder_rows(depths)),
            *self._scan_groups(short),
            *map(self._vision_group, (4, 8)),
            *(group for slices in long for group in self._scan_groups(slices)),
        ]

    def _vision_group(self, slices: int) -> "_Group":
        return _Group(
            (f"ve{slices}",),
            Layer.COMPONENT,
            lambda: self._vision_rows(slices),
            lambda: slices * self._median_s.get("ve1", 0.0),
        )

    def _scan_groups(self, slices: int) -> tuple["_Group", ...]:
        return (
            _Group(
                (f"ct{slices} cold",),
                Layer.END_TO_END,
                lambda: [self._scans.cold(slices, self._meter)],
                lambda: self._scan_estimate_s(slices, blank_slices=slices),
            ),
            _Group(
                (f"ct{slices} cached",),
                Layer.END_TO_END,
                lambda: [self._scans.cached(slices, self._meter)],
            ),
            _Group(
                (f"ct{slices} warm",),
                Layer.END_TO_END,
                lambda: [self._scans.warm(slices, self._meter)],
                lambda: self._scan_estimate_s(slices, blank_slices=0),
            ),
        )

    def _group(self, group: "_Group") -> Iterator[Row]:
        found: list[str] = []
        reason = self._beyond_deadline(group.estimate_s())
        if not reason:
            try:
                for row in group.measure():
                    found.append(row.name)
                    if row.latency:
                        self._median_s[row.name] = row.latency.median_s
                    yield row
            except MemoryError:
                reason = "there was not enough memory"
            except Exception as error:  # noqa: BLE001 one row's failure costs no other
                reason = " ".join(str(error).split()) or type(error).__name__
        for name in group.names:
            if name not in found:
                yield Row(name, group.layer, "", reason=reason)

    def _beyond_deadline(self, estimate_s: float) -> str:
        left_s = self._deadline_s - time.perf_counter()
        if estimate_s <= left_s:
            return ""
        return f"about {estimate_s:.0f} s, and a quick run has {max(left_s, 0):.0f} s left; --suite full"

    def _scan_estimate_s(self, slices: int, blank_slices: int) -> float:
        """Estimate from the measured seconds of a slice and of a prompt token."""
        tokens = self._manifest.vision.tokens_per_image + TOKENS_OF_TEXT
        slice_s = self._median_s.get("ve1", 0.0)
        read_s = tokens * self._median_s.get(f"pp{PROMPT_TOKENS}", 0.0) / PROMPT_TOKENS
        return SCAN_OVERHEAD * (slices * (slice_s + read_s) + blank_slices * read_s)

    def _vision_rows(self, slices: int) -> Iterator[Row]:
        request = self._request
        with Engine.open(
            request.directory, threads=request.threads, providers=request.providers
        ) as engine:
            peaks = self._peaks(engine, engine.choice.vision)
            yield vision_row(engine, slices, self._meter, peaks)
            self.vision_provider = engine.vision_provider or self.vision_provider

    def _decoder_rows(self, depths: tuple[int, ...]) -> Iterator[Row]:
        request, manifest = self._request, self._manifest
        with Engine.open(
            request.directory, threads=request.threads, providers=request.providers
        ) as engine:
            peaks = self._peaks(engine, engine.choice.decoder)
            if engine.choice.decoder_budget is None:
                require_context_memory(manifest, context_tokens(0), available_bytes())
            decoder = engine.decoder_model()
            self.decoder_provider = engine.choice.decoder
            embedding = Embedding(request.directory, manifest)
            yield from decoder_rows(decoder, embedding, manifest, depths, self._meter, peaks)

    def _peaks(self, engine: Engine, provider: Provider) -> Peaks:
        """Peaks of the device that runs a part; a GPU's are measured before the engine takes its memory."""
        device = engine.device_of(provider)
        if device is None:
            return self.peaks
        if self.device_peaks is None:
            engine.close()  # the self-test may have left a part there
            self.device_peaks = peaks_of_device(device.peaks(self._manifest))
        return self.device_peaks


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows that are measured together."""

    names: tuple[str, ...]
    layer: Layer
    measure: Callable[[], Iterable[Row]]
    estimate_s: Callable[[], float] = float


def _engine(directory: Path, manifest: Manifest) -> EngineUnderTest:
    precision = manifest.precision
    return EngineUnderTest(
        name=manifest.source.name,
        kind=manifest.source.kind,
        manifest_sha256=manifest.sha256,
        precision={
            "vision": precision.vision,
            "decoder": precision.decoder,
            "head": precision.head,
            "embedding": precision.embedding,
            "cache": precision.cache,
        },
        bytes=sum(record.bytes for record in manifest.files.values()),
        parity=parity_words(directory, manifest),
    )
