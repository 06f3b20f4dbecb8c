"""The command on twelve phantoms: its figures, files and pictures, and a kill in the middle."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, roc_auc_score
from support.evaluate_command import BLEED, BREAK, DRAWN, LABELLED, evaluate, lines_of
from support.schemas import assert_valid

from edge_medgemma.calibration.evaluation.evaluate import Inputs
from edge_medgemma.calibration.evaluation.evaluate import evaluate as evaluate_scans
from edge_medgemma.calibration.evaluation.predictions import read_predictions
from edge_medgemma.calibration.evaluation.records import Outcome
from edge_medgemma.calibration.evaluation.run import EngineChoice
from edge_medgemma.calibration.evaluation.summary import SummaryOptions
from edge_medgemma.runtime.backends.select import Provider, Providers
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.errors import EvaluationError
from edge_medgemma.runtime.manifest import dump_manifest, file_sha256, load_manifest
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.report import Effort
from edge_medgemma.runtime.triage.scoring.operating_points import (
    read_operating_points,
    write_operating_points,
)

SUMMARY = SummaryOptions(Effort.FAST, None, "majority", (), {}, ())
TINY_ENGINE = Path(__file__).resolve().parents[2] / "data" / "tiny_engine"


@pytest.mark.command("evaluate")
def test_figures_are_those_of_the_predictions(evaluated):
    out, result = evaluated
    assert_valid(out / "evaluation.json", "evaluation")
    document = json.loads((out / "evaluation.json").read_text())
    predictions = read_predictions(out / "predictions.csv")
    assert len(predictions) == 3 * len(DRAWN)
    assert {one.patient for one in predictions} == set(range(1, 7))
    for finding in document["findings"]:
        rows = [one for one in predictions if one.finding == finding["code"]]
        present = [one.present for one in rows]
        flagged = [one.outcome is Outcome.FLAGGED for one in rows]
        (passed, alarms), (missed, hits) = confusion_matrix(present, flagged, labels=[0, 1])
        table = finding["primary"]
        assert [table["true_negatives"], table["false_positives"]] == [passed, alarms]
        assert [table["false_negatives"], table["true_positives"]] == [missed, hits]
        scores = [one.log_odds for one in rows]
        assert finding["area"]["value"] == pytest.approx(roc_auc_score(present, scores))
        assert finding["area"]["patients"] == 6
        assert finding["positives"] == sum(finding["code"] in one for one in LABELLED)
        probabilities = finding["reliability"]
        assert probabilities["scans"] == 12
        assert finding["predictive_values"]["prevalence"] == (
            0.1 if finding["code"] == BREAK else 0.02
        )
        counts = [
            (one["attribute"], one["positives"] + one["negatives"]) for one in finding["subgroups"]
        ]
        assert counts == [
            ("sex", 6),
            ("sex", 6),
            *(("age", n) for n in (3, 5, 4)),
            ("manufacturer", 12),
        ]
        assert all(one["sensitivity"]["rate"] is None for one in finding["subgroups"])
    assert document["findings"][0]["code"] == BLEED
    assert document["findings"][0]["area"]["value"] > 0.7
    assert f"{out / 'evaluation.html'}" in result.output and (out / "evaluation.html").is_file()
    assert "demonstration only" in result.output


def test_flow_times_and_provenance_are_counted(evaluated):
    out, _ = evaluated
    document = json.loads((out / "evaluation.json").read_text())
    flow = document["flow"]
    counted = [flow[f"studies_{name}"] for name in ("found", "labelled", "read", "assessed")]
    assert counted == [12] * 4
    assert flow["patients"] == 6
    assert document["time_to_result"]["studies"] == 12
    assert 0 < document["time_to_result"]["median_s"] <= document["time_to_result"]["max_s"]
    assert document["time_to_flag"]["studies"] > 0
    assert document["provenance"]["split"] == "none"
    assert [one["name"] for one in document["provenance"]["protocols"]] == ["head_ct_demo"]


def test_wrong_answers_have_pictures(evaluated):
    out, _ = evaluated
    document = json.loads((out / "evaluation.json").read_text())
    predictions = read_predictions(out / "predictions.csv")
    missed = {(one.study, one.finding) for one in predictions
              if one.present and one.outcome is not Outcome.FLAGGED}  # fmt: skip
    false = {(one.study, one.finding) for one in predictions
             if one.present is False and one.outcome is Outcome.FLAGGED}  # fmt: skip
    wrong = [*document["worst_misses"], *document["worst_false_flags"]]
    assert {(one["study"], one["finding"]) for one in wrong} == missed | false
    assert ("case02", "mass_effect") in missed
    assert ("case07", BLEED) in false
    for one in wrong:
        assert 1 <= len(one["pictures"]) <= 3
        for picture in one["pictures"]:
            assert (out / picture["file"]).read_bytes().startswith(b"\xff\xd8\xff")
    kept = {f"pictures/{path.name}" for path in (out / "pictures").iterdir()}
    assert kept == {picture["file"] for one in wrong for picture in one["pictures"]}


def test_killed_again_and_again_it_gives_the_same_table(phantoms, evaluated, tmp_path):
    out = tmp_path / "killed"
    command = [
        sys.executable, "-m", "edge_medgemma", "evaluate", str(phantoms / "scans"),
        "--labels", str(phantoms / "labels.csv"), "--out", str(out), "--threads", "2",
    ]  # fmt: skip
    results, counts = out / "results.jsonl", [1]  # its first line is of no study

    def lines():
        return results.read_bytes().count(b"\n") if results.exists() else 0

    for end in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        # A shell's background jobs ignore SIGINT, and their children with them.
        child = subprocess.Popen(
            ["env", "--default-signal=INT", *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while child.poll() is None:
            if lines() > counts[-1]:
                child.send_signal(end)
                child.wait()
            time.sleep(0.005)
        assert child.returncode == (130 if end is signal.SIGINT else -end)
        counts.append(lines())
        with results.open("ab") as file:
            file.write(b'{"key":"torn')
    assert counts == sorted(set(counts)), "every run went on where the one before was killed"
    assert not (out / "predictions.csv").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = (evaluated[0] / "predictions.csv").read_bytes()
    assert (out / "predictions.csv").read_bytes() == expected
    assert len(results.read_bytes().splitlines()) == 1 + len(DRAWN), "nothing was done twice"


def test_thresholds_are_never_reported_on_the_scans_that_they_were_fitted_on(
    phantoms, evaluated, tmp_path
):
    document = json.loads((evaluated[0] / "evaluation.json").read_text())
    assert document["provenance"]["threshold_origin"].startswith("fitted on other scans")
    points = read_operating_points(BUILTIN_ENGINE)
    path = tmp_path / "thresholds.json"
    one = read_predictions(evaluated[0] / "predictions.csv")[0].case
    write_operating_points(replace(points, cases=("0" * 24, one)), path)
    result = evaluate(phantoms / "scans", "--labels", phantoms / "labels.csv", "--thresholds", path,
                      "--out", tmp_path / "out")  # fmt: skip
    assert result.exit_code == 1
    assert "fitted on 1 of these 12 scans" in lines_of(result)
    assert not (tmp_path / "out").exists()
    shutil.copytree(evaluated[0], tmp_path / "out")
    write_operating_points(replace(points, cases=("0" * 24,)), path)
    result = evaluate(phantoms / "scans", "--labels", phantoms / "labels.csv", "--thresholds", path,
                      "--out", tmp_path / "out")  # fmt: skip
    assert "holds results of other thresholds" in lines_of(result)


def test_thresholds_that_do_not_fit_are_said_to_be_unused(phantoms, evaluated, tmp_path):
    out = shutil.copytree(evaluated[0], tmp_path / "out")
    path = tmp_path / "thresholds.json"
    write_operating_points(
        replace(read_operating_points(BUILTIN_ENGINE), engine_sha256="0" * 64), path
    )
    results = out / "results.jsonl"
    header, rest = results.read_bytes().split(b"\n", 1)
    identity = json.loads(header) | {"thresholds_sha256": file_sha256(path)}
    results.write_bytes(json.dumps(identity, separators=(",", ":")).encode() + b"\n" + rest)
    result = evaluate(phantoms / "scans", "--labels", phantoms / "labels.csv", "--thresholds", path,
                      "--out", out)  # fmt: skip
    assert result.exit_code == 0, lines_of(result)
    assert "Fitted thresholds are not used: they were fitted for another engine" in lines_of(result)
    assert "they were fitted for another engine" in (out / "evaluation.html").read_text()
    assert not any("Fitted" in one for one in notes_of(evaluated[0]))


def notes_of(folder: Path) -> list[str]:
    document = json.loads((folder / "evaluation.json").read_text())
    return list(document["flow"]["notes"])


def test_an_engine_that_changes_meanwhile_ends_the_evaluation(phantoms, tmp_path):
    engine = shutil.copytree(BUILTIN_ENGINE, tmp_path / "engine")
    manifest = load_manifest(engine)
    providers = Providers(Provider.CPU, Provider.CPU)
    inputs = Inputs(
        phantoms / "scans", phantoms / "labels.csv", "table", "majority",
        EngineChoice(engine, providers, 2), None, tmp_path / "out",
    )  # fmt: skip

    def replace_engine(label, done, total):
        if label == "triaging studies" and done == 1:
            (engine / "manifest.json").write_text(dump_manifest(replace(manifest, licence="other")))

    with pytest.raises(EvaluationError, match="was changed during the evaluation"):
        evaluate_scans(inputs, TriageOptions(), SUMMARY, replace_engine)
    kept = (tmp_path / "out" / "results.jsonl").read_bytes().splitlines()
    assert len(kept) == 2, "what the old engine said of the first study"
    assert not (tmp_path / "out" / "evaluation.json").exists()
    with pytest.raises(EvaluationError, match="results of another engine"):
        evaluate_scans(inputs, TriageOptions(), SUMMARY, lambda *_: None)


def test_an_engine_is_compared_with_itself_without_a_flip(phantoms, again, tmp_path):
    scans = tmp_path / "few"
    shutil.copytree(phantoms / "scans", scans)
    for place in range(2, 12):
        shutil.rmtree(scans / f"case{place:02}")
    result, document = again("--compare", BUILTIN_ENGINE, scans=scans)
    assert result.exit_code == 0, lines_of(result)
    assert "Each engine flags by the thresholds that hold for it" in lines_of(result)
    comparison = document["comparison"]
    assert comparison["flips"] == []
    for finding in comparison["findings"]:
        assert finding["all"]["scans"] == 2
        assert finding["all"]["p_value"] == 1
        assert finding["largest_absolute_change"] == 0


def test_pictures_are_evaluated_as_radiographs_are(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    rows, columns = np.mgrid[0:128, 0:128]
    for place in range(3):
        grey = 128 + 90 * np.sin(rows / 20 + place) * np.cos(columns / 25)
        Image.fromarray(grey.astype(np.uint8)).save(images / f"p{place}.png")
    labels = tmp_path / "labels.csv"
    labels.write_text("study,pneumothorax\np0,1\np1,0\np2,0\n")
    out = tmp_path / "out"
    result = evaluate(images, "--labels", labels, "--protocol", "chest_xray",
                      "--engine", TINY_ENGINE, "--out", out)  # fmt: skip
    assert result.exit_code == 0, lines_of(result)
    flow = json.loads((out / "evaluation.json").read_text())["flow"]
    assert [flow[f"studies_{name}"] for name in ("found", "labelled", "read")] == [3, 3, 3]
    predictions = read_predictions(out / "predictions.csv")
    assert {one.study for one in predictions if one.log_odds is not None} == {"p0", "p1", "p2"}
