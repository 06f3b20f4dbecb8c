"""A second look at a scan: quicker, and the same to the last bit."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.fake_engine import known_domain
from support.synthetic_series import CANARIES, CANARY, write_head_ct

from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.commands.progress import STAGE_WORDS
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.reporting.json_report import dump_report
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.volume import SliceStack
from edge_medgemma.runtime.slicing.windows import render_stack
from edge_medgemma.runtime.store.scan_cache import Kind, ScanCache
from edge_medgemma.runtime.triage.chat_session import open_scan
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.prefill import FeatureStore, SlicePrefiller
from edge_medgemma.runtime.triage.progress import StageTracker
from edge_medgemma.runtime.triage.report import CacheHits
from edge_medgemma.runtime.triage.triage_scan import triage_scan

HEAD_CT = Path(__file__).parents[2] / "data" / "ct_head"
INSTRUCTION = "Please review the slices."
QUESTION = "Is there a haemorrhage?"


@pytest.fixture(scope="module")
def stack() -> SliceStack:
    """Six slices of a real head CT."""
    series = find_series(HEAD_CT, lambda done, total: None).series[0]
    return render_stack(read_volume(series, np.arange(4, 28, 4)))


@pytest.fixture(scope="module")
def phantom():
    with Engine.open(BUILTIN_ENGINE) as engine:
        yield engine


@pytest.fixture
def cache(tmp_path: Path) -> ScanCache:
    return ScanCache(tmp_path / "scans")


def read(
    engine: Engine, stack: SliceStack, cache: ScanCache | None, instruction: str = INSTRUCTION
) -> tuple[np.ndarray, CacheHits]:
    """Logits of a question, and what came from the cache."""
    prefiller = SlicePrefiller(engine, instruction, stack, cache, StageTracker())
    features = FeatureStore()
    done = prefiller.prefill(features, prefiller.encode(features))
    return done.prefix.score([engine.prompt.question(QUESTION)]), done.cache_hits


def test_what_takes_long_is_shown_before_it_begins(phantom, stack, cache):
    """Nothing stands still under the words of what was done before."""
    shown: list[tuple[str, int, int]] = []
    tracker = StageTracker(lambda *event: shown.append(event))
    prefiller = SlicePrefiller(phantom, INSTRUCTION, stack, cache, tracker)
    prefiller.encode(FeatureStore())
    count = len(stack.pixels)
    assert shown[:2] == [("open vision", 0, 1), ("vision", 0, count)]
    assert shown[-1] == ("vision", count, count)
    shown.clear()
    first = replace(stack, pixels=stack.pixels[:1] // 2)
    for _ in range(2):  # the second time its features are cached
        prefiller.encode_blank(first, FeatureStore())
    assert shown == [("open vision", 0, 1), ("vision", 0, 1)]
    assert {stage for stage, *_ in shown} <= STAGE_WORDS.keys()


def files(cache: ScanCache, kind: Kind) -> list[Path]:
    return [entry.path for entry in cache.entries() if entry.kind == kind]


def test_a_second_reading_is_the_first_bit_for_bit(phantom, stack, cache) -> None:
    plain, nothing = read(phantom, stack, None)
    first, recalled = read(phantom, stack, cache)
    assert nothing == recalled == CacheHits(0, False)
    with Engine.open(BUILTIN_ENGINE) as engine:
        second, recalled = read(engine, stack, cache)
    assert recalled == CacheHits(6, True)
    assert np.array_equal(plain, first) and np.array_equal(first, second)
    assert len(files(cache, Kind.FEATURES)) == 6 and len(files(cache, Kind.PREFIX)) == 1


def test_another_instruction_or_selection_reuses_slices_only(phantom, stack, cache) -> None:
    read(phantom, stack, cache)
    other, recalled = read(phantom, stack, cache, "Look at these.")
    assert recalled == CacheHits(6, False)
    assert np.array_equal(other, read(phantom, stack, None, "Look at these.")[0])
    pixels = stack.pixels.copy()
    pixels[2, 100, 100, 1] ^= 1
    changed = replace(stack, pixels=pixels)
    logits, recalled = read(phantom, changed, cache)
    assert recalled == CacheHits(5, False)
    assert np.array_equal(logits, read(phantom, changed, None)[0])
    turned = replace(stack, pixels=stack.pixels[::-1])
    assert read(phantom, turned, cache)[1] == CacheHits(6, False)
    assert read(phantom, replace(stack, preset="medgemma-mr"), cache)[1] == CacheHits(0, False)


def test_another_engine_takes_nothing(phantom, tiny_engine, stack, cache) -> None:
    expected = read(tiny_engine, stack, None)[0]
    read(phantom, stack, cache)
    logits, recalled = read(tiny_engine, stack, cache)
    assert recalled == CacheHits(0, False) and np.array_equal(logits, expected)
    assert read(phantom, stack, cache)[1] == CacheHits(6, True)


def test_damaged_files_are_computed_again(phantom, stack, cache) -> None:
    expected = read(phantom, stack, cache)[0]
    (prefix,) = files(cache, Kind.PREFIX)
    whole = bytearray(prefix.read_bytes())
    for damage in (bytes(len(whole)), bytes(whole[:-1]), bytes(whole[: len(whole) // 3]), b""):
        prefix.write_bytes(damage)
        logits, recalled = read(phantom, stack, cache)
        assert recalled == CacheHits(6, False) and np.array_equal(logits, expected)
        assert read(phantom, stack, cache)[1] == CacheHits(6, True)
    whole[len(whole) // 2] ^= 64
    prefix.write_bytes(whole)
    features = files(cache, Kind.FEATURES)
    features[0].write_bytes(features[0].read_bytes()[:-4])
    logits, recalled = read(phantom, stack, cache)
    assert recalled == CacheHits(5, False) and np.array_equal(logits, expected)


@pytest.mark.parametrize(
    "arrays",
    [
        [],
        [np.zeros((2, 2), np.float32)],
        [np.zeros(2, np.int64), np.zeros((4, 3), np.int64), np.zeros((4, 3), np.int64)],
        [np.zeros(2, np.int64), np.zeros((4, 0), np.int64), np.zeros((4, 0), np.int64)]
        + [np.zeros((1, 2, 0, 64), np.float32)] * 14,
        [np.zeros(2, np.int64), np.zeros((4, 3), np.int64), np.zeros((4, 3), np.int64)]
        + [np.zeros((1, 2, 3, 64), np.float32)] * 14,
    ],
)
def test_whole_files_of_another_shape_are_computed_again(phantom, stack, cache, arrays) -> None:
    expected = read(phantom, stack, cache)[0]
    for entry in cache.entries():
        kind = Kind(entry.kind)
        cache.write(kind, entry.path.stem, phantom.manifest.sha256, arrays)
    logits, recalled = read(phantom, stack, cache)
    assert recalled == CacheHits(0, False) and np.array_equal(logits, expected)
    assert read(phantom, stack, cache)[1] == CacheHits(6, True)


def test_a_report_differs_in_nothing_but_times_and_where_it_came_from(
    phantom, phantom_scan, tmp_path
) -> None:
    def report(cache: ScanCache | None) -> tuple[dict, dict]:
        options = TriageOptions(slices=8, baseline_folder=tmp_path / "controls", scan_cache=cache)
        document = json.loads(dump_report(triage_scan(phantom, phantom_scan, options)))
        (study,) = document["studies"]
        for one in (document, study):
            del one["timings_s"]
        for one in study["passes"]:
            del one["duration_s"]
        del document["created_at"]
        return document, study.pop("cache_hits")

    cache = ScanCache(tmp_path / "scans")
    plain, first, second = report(None), report(cache), report(cache)
    assert plain[0] == first[0] == second[0]
    assert plain[0]["studies"][0]["findings"][0]["key_slices"]
    assert plain[1] == first[1] == {"slices": 0, "prefix": False}
    assert second[1] == {"slices": 8, "prefix": True}


def test_a_lost_control_is_measured_without_encoding_the_slices_again(
    phantom, phantom_scan, tmp_path
) -> None:
    cache = ScanCache(tmp_path / "scans")
    options = TriageOptions(slices=8, baseline_folder=tmp_path / "a", scan_cache=cache)
    first = triage_scan(phantom, phantom_scan, options).studies[0]
    again = triage_scan(phantom, phantom_scan, replace(options, baseline_folder=tmp_path / "b"))
    assert again.studies[0].findings == first.findings
    assert again.studies[0].cache_hits == CacheHits(8, True)
    assert len(files(cache, Kind.FEATURES)) == 9


def test_nothing_of_a_patient_is_in_names_or_files(tiny_engine, tmp_path, monkeypatch) -> None:
    scan = write_head_ct(tmp_path / f"{CANARY} folder", lesion=range(4, 8))
    domain = known_domain(width=tiny_engine.manifest.text.hidden_size)
    for module in ("triage_scan", "chat_session"):
        name = f"edge_medgemma.runtime.triage.{module}.read_domain"
        monkeypatch.setattr(name, lambda *_: domain)
    cache = ScanCache(tmp_path / "scans")
    options = TriageOptions(slices=4, baseline_folder=tmp_path / "controls", scan_cache=cache)
    study = triage_scan(tiny_engine, scan, options).studies[0]
    open_scan(tiny_engine, scan, options)
    uids = {study.study_uid, study.series.series_uid, study.slices[0].sop_instance_uid}
    planted = [*CANARIES.values(), CANARY, *uids, str(tmp_path), "SLICE", "radiologist"]
    entries = cache.entries()
    assert {entry.kind for entry in entries} == set(Kind)
    for entry in entries:
        content = entry.path.name.encode() + entry.path.read_bytes()
        for text in planted:
            assert text.encode() not in content
            assert text.encode("utf-16-le") not in content


ASK = """
import sys
from edge_medgemma.runtime.cli import cli
cli.main(sys.argv[1:], prog_name="edge-medgemma")
"""


@pytest.mark.command("ask")
def test_two_processes_on_one_scan(phantom_scan, tmp_path) -> None:
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    arguments = [
        "ask",
        str(phantom_scan),
        QUESTION,
        "--slices",
        "6",
        "--max-tokens",
        "8",
        "--timings",
    ]
    command = [sys.executable, "-c", ASK, *arguments]

    def start() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)

    answers = [process.communicate() for process in [start(), start()]]
    third = start().communicate()
    assert len({out for out, _ in [*answers, third]}) == 1 and third[0].strip()
    assert "cached slices loaded in" in third[1]
    assert all("scan cache" not in err and "Traceback" not in err for _, err in answers)
    kinds = [entry.kind for entry in ScanCache(tmp_path / "edge-medgemma" / "scans").entries()]
    assert sorted(kinds) == ["features"] * 6 + ["pooled"] * 6 + ["prefix"]


def test_killed_readings_leave_nothing_wrong(tmp_path) -> None:
    arguments = ["support.killed_runs", str(HEAD_CT), str(tmp_path / "scans")]
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_features_are_dropped_as_they_are_prefilled_unless_a_later_pass_needs_them(
    phantom, stack
) -> None:
    for keeps in (False, True):
        prefiller = SlicePrefiller(phantom, INSTRUCTION, stack, None, StageTracker())
        features = FeatureStore()
        encoded = prefiller.encode(features)
        prefiller.prefill(features, encoded, keeps_features=keeps)
        assert sorted(features.slices) == (stack.slice_indices.tolist() if keeps else [])
        assert prefiller.num_encoded == 6
