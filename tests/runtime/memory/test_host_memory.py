import subprocess
import sys
from dataclasses import replace

import pytest

from edge_medgemma.export.checkpoint.synthetic import SHAPES
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.manifest import FileRecord, Manifest, load_manifest
from edge_medgemma.runtime.memory.host_memory import (
    cache_bytes,
    fits_together,
    largest_slices,
    plan_memory,
    require_context_memory,
    require_memory,
)

SHAPE = (512, 512)

PEAK_OF_A_TRIAGE = """
import re, sys
from pathlib import Path
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.triage_scan import triage_scan
options = TriageOptions(slices=24, baseline_folder=Path(sys.argv[2]))
with Engine.open(BUILTIN_ENGINE, threads=int(sys.argv[3])) as engine:
    triage_scan(engine, Path(sys.argv[1]), options)
# Not ru_maxrss: a child inherits its parent's.
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024)
"""


@pytest.fixture
def manifest() -> Manifest:
    """The demonstration engine with the file sizes of a 4B engine."""
    small = load_manifest(BUILTIN_ENGINE)
    sizes = {"vision.data": 1_680_000_000, "decoder.data": 1_706_000_000}
    files = {name: FileRecord(size, "0" * 64) for name, size in sizes.items()}
    return replace(small, files=files, text=replace(small.text, max_positions=8192))


def test_caches_are_counted_by_geometry(manifest) -> None:
    text = replace(
        manifest.text, layers=34, heads=8, kv_heads=4, head_dim=256, sliding_window=1024,
        layer_is_global=((False,) * 5 + (True,)) * 5 + (False,) * 4,
    )  # fmt: skip
    shape = replace(
        manifest, text=text, precision=replace(manifest.precision, decode_kv_cache=None)
    )
    more = cache_bytes(shape, 22_000) - cache_bytes(shape, 2_000)
    assert more == 20_000 * 5 * 2 * 4 * 256 * 4, "only the five global layers grow"
    half = replace(shape, precision=replace(shape.precision, cache="fp16"))
    assert cache_bytes(half, 22_000) * 2 == cache_bytes(shape, 22_000)
    # 29 local layers of a window and 320 rows, 5 global ones of 2048 beyond the prefix
    assert cache_bytes(shape, 0) == (29 * 1344 + 5 * 2048) * 2 * 4 * 256 * 4
    copied = replace(shape, precision=replace(shape.precision, decode_kv_cache="int8"))
    assert cache_bytes(copied, 0) * 4 == cache_bytes(shape, 0) * 5, "a byte more for each number"


@pytest.mark.parametrize(
    ("size", "slices", "gigabytes"),
    [
        # 34 layers, 5 of them global, that take 8192 bytes a token in float32 and 2048 in int8:
        # 102,352 tokens and 29 times 1344; 288 rows of scores of 8 heads and 2 masks, 100,304 long
        ("4b", 376, 0.15 + 0.690 + 2.54 + (1.156 + 0.059) + (5.24 + 0.40)),
        # 62 layers, 10 of them global, that take 20,480 bytes a token; scores of 32 heads
        ("27b", 1, 0.15 + 0.002 + 15.81 + (0.022 + 0.124) + (0.53 + 1.43)),
        ("27b", 376, 0.15 + 0.690 + 15.81 + (3.929 + 0.124) + (20.96 + 1.43)),
    ],
)
def test_what_is_planned_for_100_000_tokens_is_what_the_shapes_say(
    manifest, size, slices, gigabytes
) -> None:
    text, vision, _ = SHAPES[size]
    weights = {"4b": (1_850_000_000, 690_000_000), "27b": (14_354_631_168, 1_453_681_152)}[size]
    names = ("decoder.data", "embedding.data")
    files = {name: FileRecord(count, "0" * 64) for name, count in zip(names, weights, strict=True)}
    plan = plan_memory(replace(manifest, text=text, vision=vision, files=files), slices)
    assert plan.peak_bytes == pytest.approx(gigabytes * 1e9, rel=0.003)


def test_a_context_without_memory_for_it_is_refused_in_numbers(manifest) -> None:
    text, vision, _ = SHAPES["27b"]
    wide = replace(manifest, text=text, vision=vision)
    require_context_memory(wide, 100_000, 3 * 10**10)
    with pytest.raises(ResourceError, match=r"100,000 tokens needs 2\d.\d GB .* 16.0 GB are"):
        require_context_memory(wide, 100_000, 16 * 10**9)


def test_the_largest_number_of_slices_fits_and_one_more_does_not(manifest) -> None:
    for available in (1_900_000_000, 1_950_000_000, 2_000_000_000):
        slices = largest_slices(manifest, available, SHAPE)
        assert slices > 0
        assert plan_memory(manifest, slices, SHAPE).peak_bytes <= available
        assert plan_memory(manifest, slices + 1, SHAPE).peak_bytes > available
    assert largest_slices(manifest, 10**6) == 0
    most = largest_slices(manifest, 10**12)
    assert most * manifest.vision.tokens_per_image <= manifest.text.max_positions


def test_what_does_not_fit_is_refused_with_a_number_that_does(manifest) -> None:
    require_memory(manifest, 85, SHAPE, 10**11)
    with pytest.raises(ResourceError) as refusal:
        require_memory(manifest, 85, SHAPE, 1_950_000_000)
    slices = largest_slices(manifest, 1_950_000_000, SHAPE)
    assert f"use --slices {slices}" in str(refusal.value)
    assert "1.9 GB are available" in str(refusal.value) or "2.0 GB are" in str(refusal.value)
    require_memory(manifest, slices, SHAPE, 1_950_000_000)
    wide = replace(manifest, precision=replace(manifest.precision, decoder="fp32"))
    with pytest.raises(ResourceError, match=r"one slice needs .* or use an int4 engine"):
        require_memory(wide, 8, SHAPE, 10**8)


def test_a_large_engine_takes_turns(manifest) -> None:
    assert not fits_together(manifest, 8 * 10**9)
    assert fits_together(manifest, 64 * 10**9)
    assert fits_together(load_manifest(BUILTIN_ENGINE), 4 * 10**9)


def test_a_refused_study_is_one_error_and_looks_at_nothing(tmp_path) -> None:
    from support.fake_engine import FakeEngine
    from support.synthetic_series import write_head_ct

    from edge_medgemma.runtime.triage.options import TriageOptions
    from edge_medgemma.runtime.triage.triage_scan import triage_scan

    engine = FakeEngine()
    engine.available_bytes = 10**6
    scan = write_head_ct(tmp_path / "scan")
    with pytest.raises(ResourceError, match="20 slices need"):
        triage_scan(engine, scan, TriageOptions(baseline_folder=tmp_path))
    assert engine.images_encoded == 0


def test_with_little_memory_fewer_slices_are_looked_at_and_it_is_said(tmp_path, caplog) -> None:
    from support.fake_engine import FakeEngine
    from support.synthetic_series import write_head_ct

    from edge_medgemma.runtime.triage.options import TriageOptions
    from edge_medgemma.runtime.triage.room import SPARE_BYTES
    from edge_medgemma.runtime.triage.triage_scan import triage_scan

    engine = FakeEngine()
    scan = write_head_ct(tmp_path / "scan")
    engine.available_bytes = plan_memory(engine.manifest, 7, (64, 64)).peak_bytes + SPARE_BYTES
    (study,) = triage_scan(engine, scan, TriageOptions(baseline_folder=tmp_path)).studies
    held = engine.images_encoded - 1  # and a blank one
    assert 0 < held < 20 and len(study.slices) == held
    assert f"memory holds {held} of the 20 slices" in caplog.text and "close other" in caplog.text
    engine.available_bytes = engine.available_bytes - SPARE_BYTES
    with pytest.raises(ResourceError, match=f"20 slices need .* use --slices {held}"):
        triage_scan(engine, scan, TriageOptions(slices=20, baseline_folder=tmp_path))


@pytest.mark.parametrize("threads", ["2", "8"])
def test_the_plan_is_near_the_peak_of_a_real_run(threads, tmp_path) -> None:
    """The demonstration engine: most of its peak is the program, so this guards that constant."""
    from support.synthetic_series import write_head_ct

    scan = write_head_ct(tmp_path / "scan", slices=24)
    arguments = [sys.executable, "-c", PEAK_OF_A_TRIAGE, str(scan), str(tmp_path), threads]
    run = subprocess.run(arguments, capture_output=True, check=True, text=True)
    measured = int(run.stdout)
    planned = plan_memory(load_manifest(BUILTIN_ENGINE), 24, (32, 32)).together_bytes
    assert 0.7 < planned / measured < 1.4, f"planned {planned}, measured {measured}"
