"""An engine that changes outcomes of triage is refused, and nothing of it is left behind."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from support.labelled_phantoms import draw_labelled

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.flips import FlipCheck
from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.errors import ParityError

DATA = Path(__file__).resolve().parents[1] / "data"
CHECKPOINT = DATA / "demo_checkpoint"


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flips")
    draw_labelled(folder, [["intracranial_haemorrhage"], []])
    return folder / "scans"


def export(*arguments):
    return CliRunner().invoke(cli, ["export", str(CHECKPOINT), *map(str, arguments)])


@pytest.mark.parametrize(
    "options", [["--precision", "int8"], ["--precision", "fp16", "--target", "cuda"]]
)
def test_an_engine_that_changes_little_is_kept(scans, tmp_path, options):
    engine = tmp_path / "engine"
    result = export("-o", engine, *options, "--no-reference-outputs",
                    "--flips-on", scans, "--require-no-flips", "2")  # fmt: skip
    assert result.exit_code == 0, (result.output, result.exception)
    assert "of 10 outcomes changed on 2 studies against the float32 engine" in result.output
    assert (engine / "manifest.json").is_file()
    assert not [path for path in engine.iterdir() if path.is_dir()]


def test_changed_outcomes_are_counted_and_refused(scans, tmp_path):
    engine = shutil.copytree(DATA / "tiny_engine", tmp_path / "engine")
    check = FlipCheck(open_checkpoint(str(CHECKPOINT)), scans, most=2)
    with pytest.raises(ParityError, match=r"\d of 10 outcomes changed on 2 studies.*more than 2"):
        check(engine)
    assert check.count is not None
    assert check.count.changed > 2
    assert not [path for path in engine.iterdir() if path.is_dir()]


def test_scans_that_neither_engine_can_assess_prove_nothing(tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    values = np.random.default_rng(0).integers(-1000, 1000, (32, 32, 9)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.eye(4)), scans / "a.nii.gz")
    engine = tmp_path / "out" / "engine"
    result = export(
        "-o", engine, "--precision", "fp32", "--flips-on", scans, "--require-no-flips", "0"
    )
    assert isinstance(result.exception, ParityError)
    assert "no outcome of 1 studies could be compared" in str(result.exception)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--require-no-flips", "0"], "go together"),
        (["--flips-on", "scans"], "go together"),
        (["--require-no-flips", "-1", "--flips-on", "scans"], "-1 is not in the range"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, options, message):
    result = export("-o", tmp_path / "engine", *options)
    assert result.exit_code == 2
    assert message in result.output


def test_scans_that_cannot_be_read_are_known_before_anything_is_written(tmp_path):
    result = export(
        "-o", tmp_path / "engine", "--flips-on", tmp_path / "none", "--require-no-flips", "0"
    )
    assert result.exit_code == 1
    assert "does not exist" in str(result.exception)
    assert not (tmp_path / "engine").exists()
