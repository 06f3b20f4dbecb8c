"""Start of a fresh process up to its first token, part by part."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from edge_medgemma.runtime.backends.select import Providers
from edge_medgemma.runtime.domain import without_scope
from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.manifest import MANIFEST_NAME, Manifest, dump_manifest
from edge_medgemma.runtime.profiling.distribution import Distribution
from edge_medgemma.runtime.profiling.record import Layer, Row
from edge_medgemma.runtime.profiling.synthetic_ct import write_synthetic_ct
from edge_medgemma.runtime.tracing.spans import Span
from edge_medgemma.runtime.tracing.trace_file import load_trace

QUESTION = "Based on the slices provided above, is there an abnormality? Answer yes or no."

INTERPRETER_STARTS = 3

COLD_START_BAND = 0.5
"""Noise band of a single start: it depends on what else the disk and the page cache hold."""


@dataclass(frozen=True, slots=True)
class ColdStart:
    """A process of its own asks about one slice and stops at the first token."""

    directory: Path
    manifest: Manifest
    providers: Providers
    threads: int
    work_folder: Path

    def row(self) -> Row:
        """One run, the engine's files put out of the page cache where the system allows it.

        Raises:
            ResourceError: the process failed.
        """
        scan = write_synthetic_ct(self.work_folder / "ct1", 1, seed=0)
        trace = self.work_folder / "cold.json"
        interpreter_s = _interpreter_start_s()
        is_dropped = self._drop_from_page_cache()
        start_s = time.perf_counter()
        peak_bytes = self._run(scan, trace)
        latency_s = time.perf_counter() - start_s
        stages_s = _stages_s(load_trace(trace), interpreter_s)
        stages_s["other"] = max(latency_s - sum(stages_s.values()), 0.0)
        files = "not in" if is_dropped else "perhaps in"
        row = Row(
            name="cold start",
            layer=Layer.END_TO_END,
            includes=f"new process, one slice, one token; engine files {files} the page cache",
            slices=1,
            tokens=1,
        )
        return replace(
            row,
            latency=Distribution.of([latency_s], COLD_START_BAND),
            stages_s=stages_s,
            peak_bytes=peak_bytes,
            peak_method="kernel" if peak_bytes is not None else "not available",
        )

    def _run(self, scan: Path, trace: Path) -> int | None:
        """Peak resident bytes of the process."""
        command = [
            sys.executable, "-m", "edge_medgemma", "ask", str(scan), QUESTION,
            "--engine", str(self._engine_directory()), "--slices", "1", "--max-tokens", "1",
            "--threads", str(self.threads), "--trace", str(trace), "--no-cache",
            "--provider", f"vision={self.providers.vision}",
            "--provider", f"decoder={self.providers.decoder}",
        ]  # fmt: skip
        errors = self.work_folder / "cold.txt"
        with errors.open("wb") as stderr:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
            try:
                if not hasattr(os, "wait4"):
                    process.wait()
                    peak = None
                else:
                    _, status, usage = os.wait4(process.pid, 0)
                    process.returncode = os.waitstatus_to_exitcode(status)
                    scale = 1 if sys.platform == "darwin" else 1024
                    peak = usage.ru_maxrss * scale
            except BaseException:
                process.terminate()
                process.wait()
                raise
        if process.returncode:
            lines = errors.read_text(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"status {process.returncode}"
            raise ResourceError(f"the process failed: {reason}")
        return peak

    def _engine_directory(self) -> Path:
        """The engine; of a demo engine, which would not answer about this scan, a copy that does."""
        scope = self.manifest.scope
        if scope is None or not scope.is_demonstration or not self.directory.is_dir():
            return self.directory
        copy = self.work_folder / "unscoped"
        if not copy.is_dir():
            shutil.copytree(self.directory, copy)
            manifest = dump_manifest(without_scope(self.manifest))
            (copy / MANIFEST_NAME).write_text(manifest, encoding="utf-8")
        return copy

    def _drop_from_page_cache(self) -> bool:
        """Pages that another process has mapped stay: the figure is then that of a warm disk."""
        if not hasattr(os, "posix_fadvise"):
            return False
        with suppress(OSError):
            for name in self.manifest.files:
                handle = os.open(self._engine_directory() / name, os.O_RDONLY)
                try:
                    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(handle)
            return True
        return False


def _interpreter_start_s() -> float:
    """Seconds that Python itself needs to begin and end."""
    samples_s = []
    for _ in range(INTERPRETER_STARTS):
        start_s = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        samples_s.append(time.perf_counter() - start_s)
    return statistics.median(samples_s)


def _stages_s(spans: list[Span], interpreter_s: float) -> dict[str, float]:
    durations_s: defaultdict[str, float] = defaultdict(float)
    for span in spans:
        durations_s[span.name] += span.duration_s
    process_start_s = min(interpreter_s, durations_s["start"])
    return {
        "process start": process_start_s,
        "import": durations_s["start"] - process_start_s,
        "check files": durations_s["check files"],
        "open": durations_s["open"] - durations_s["check files"],
        "discover": durations_s["discover"],
        "decode": durations_s["decode"],
        "render": durations_s["render"],
        "load vision": durations_s["load vision"],
        "first image": durations_s["vision"] - durations_s["load vision"],
        "load decoder": durations_s["load decoder"],
        "prefill": durations_s["prefill"] - durations_s["load decoder"],
        "first token": durations_s["generate"],
    }
