"""One flipped bit in a small file that answers depend on changes no answer and shows no traceback.

The whole run, 2,000 bits of the manifest and 200 of the baselines, takes a few minutes:
`pytest tests/runtime/test_bit_flips.py --bit-flips 2000`
"""

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.synthetic_series import write_head_ct

from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.documents import dump_sealed, parse_sealed
from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.manifest import MANIFEST_NAME, load_manifest
from edge_medgemma.runtime.parity import PARITY_NAME, UNVERIFIED, Parity, parity_words, write_parity
from edge_medgemma.runtime.store.scan_cache import ScanCache
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.triage_scan import triage_scan
from edge_medgemma.runtime.triage.urgency import Urgency


@pytest.fixture
def num_flips(request: pytest.FixtureRequest) -> int:
    number: int = request.config.getoption("--bit-flips")
    return number


@pytest.fixture
def engine_copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUILTIN_ENGINE, tmp_path / "engine"))


def flipped(path: Path, count: int) -> Iterator[int]:
    """The file with one bit inverted, `count` times, as it was in the end; gives the bits."""
    data = path.read_bytes()
    bits = random.Random(0).sample(range(8 * len(data)), min(count, 8 * len(data)))
    try:
        for bit in bits:
            altered = bytearray(data)
            altered[bit // 8] ^= 1 << bit % 8
            path.write_bytes(altered)
            yield bit
    finally:
        path.write_bytes(data)


def test_a_flipped_bit_of_the_manifest_ends_in_one_sentence(
    engine_copy: Path, tmp_path: Path, num_flips: int
) -> None:
    scan = write_head_ct(tmp_path / "scan", slices=1)
    arguments = ["triage", str(scan), "--engine", str(engine_copy), "--out", str(tmp_path / "out")]
    for bit in flipped(engine_copy / MANIFEST_NAME, num_flips):
        result = CliRunner().invoke(cli, arguments)
        assert isinstance(result.exception, EngineError), f"bit {bit}: {result.exception!r}"
        assert MANIFEST_NAME in str(result.exception), f"bit {bit}"
    assert not (tmp_path / "out").exists()


def test_the_program_prints_that_sentence_and_nothing_else(engine_copy: Path) -> None:
    for _ in flipped(engine_copy / MANIFEST_NAME, 2):
        command = [sys.executable, "-m", "edge_medgemma", "doctor", "--engine", str(engine_copy)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ") and "export the engine again" in line


def test_a_flipped_bit_of_a_baseline_changes_no_answer(tmp_path: Path, num_flips: int) -> None:
    scan = tmp_path / "scan"  # of the kind that the engine was made for
    finding = ["--finding", "intracranial_haemorrhage"]
    drawn = CliRunner().invoke(cli, ["phantom", "draw", str(scan), "--seed", "3000055", *finding])
    assert drawn.exit_code == 0, drawn.output
    folder = tmp_path / "baselines"
    options = TriageOptions(
        slices=4, baseline_folder=folder, scan_cache=ScanCache(tmp_path / "scans")
    )
    with Engine.open(BUILTIN_ENGINE, threads=1) as engine:

        def answers() -> list[Any]:
            (study,) = triage_scan(engine, scan, options).studies
            return [study.urgency, study.findings, study.limitations]

        expected = answers()
        assert expected[0] is Urgency.CRITICAL
        (path,) = folder.iterdir()
        written = path.read_bytes()
        for bit in flipped(path, max(2, num_flips // 10)):
            assert answers() == expected, f"bit {bit}"
            assert path.read_bytes() == written, "it was not measured again"


def test_a_flipped_bit_of_a_parity_stamp_is_no_parity(engine_copy: Path, num_flips: int) -> None:
    manifest = load_manifest(engine_copy)
    write_parity(engine_copy, Parity(manifest.sha256, "transformers", None, 1e-5, 1.0, 0.99))
    assert "KL 1.0e-05" in parity_words(engine_copy, manifest)
    for bit in flipped(engine_copy / PARITY_NAME, num_flips):
        assert parity_words(engine_copy, manifest) == UNVERIFIED, f"bit {bit}"


def test_no_flipped_bit_of_a_sealed_text_is_believed() -> None:
    data = dump_sealed({"batches": [1, 4], "has_decode_profile": True}).encode()
    assert parse_sealed(data, dict)["batches"] == [1, 4]
    for bit in range(8 * len(data)):
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="SHA-256"):
            parse_sealed(bytes(altered), dict)
