"""One whole evaluation, which many tests look at or go on with."""

import json
import shutil
from pathlib import Path

import pytest
from support.evaluate_command import BREAK, DRAWN, LABELLED, evaluate, lines_of
from support.labelled_phantoms import draw_labelled


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    draw_labelled(folder, DRAWN, LABELLED)
    return folder


@pytest.fixture(scope="session")
def evaluated(phantoms):
    """The folder of a whole evaluation, and what the command printed."""
    out = phantoms / "evaluation"
    result = evaluate(
        phantoms / "scans", "--labels", phantoms / "labels.csv", "--out", out,
        "--by", "sex,age,manufacturer", "--prevalence", "0.02", "--prevalence", f"{BREAK}=0.1",
    )  # fmt: skip
    assert result.exit_code == 0, lines_of(result)
    return out, result


@pytest.fixture
def again(phantoms, evaluated, tmp_path):
    """Evaluate once more with other options: every study is taken from the results that are there."""
    out, _ = evaluated

    def run(*arguments, labels=phantoms / "labels.csv", scans=phantoms / "scans"):
        copy = tmp_path / "again"
        if not copy.exists():
            shutil.copytree(out, copy)
        result = evaluate(scans, "--labels", labels, "--out", copy, *arguments)
        path = copy / "evaluation.json"
        return result, json.loads(path.read_text()) if result.exit_code == 0 else None

    return run
