"""Labels that do not fit, results of another run, requirements: counted and listed, or one line."""

import json
import shutil

import pytest
from support.evaluate_command import BLEED, evaluate, lines_of


def test_results_of_another_run_are_refused(phantoms, evaluated, tmp_path):
    out = tmp_path / "other"
    shutil.copytree(evaluated[0], out)
    arguments = [phantoms / "scans", "--labels", phantoms / "labels.csv", "--out", out]
    before = (out / "results.jsonl").read_bytes()
    for options, reason in (
        (["--slices", "5"], "slices"),
        (["--effort", "reasoned"], "effort fast"),
        (["--protocol", "head_ct"], "protocol auto"),
    ):
        result = evaluate(*arguments, *options)
        assert result.exit_code == 1
        assert reason in lines_of(result)
    sha256 = json.loads(before.splitlines()[0])["engine_sha256"]
    (out / "results.jsonl").write_bytes(before.replace(sha256.encode(), b"0" * 64))
    result = evaluate(*arguments)
    assert result.exit_code == 1
    assert "holds results of another engine (000000000000" in lines_of(result)
    (out / "results.jsonl").write_bytes(before.replace(b'"log_odds":', b'"log_odds":"x', 1))
    assert "damaged" in lines_of(evaluate(*arguments))


def test_a_figure_below_what_is_required_ends_with_one_line_each(again):
    result, _ = again("--require", f"auc({BLEED})>=0.5", "--require", f"sensitivity({BLEED})>=0.1")
    assert result.exit_code == 0, lines_of(result)
    result, _ = again(
        "--require", f"auc_low({BLEED})>=0.999", "--require", "sensitivity_low(mass_effect)>=0.9"
    )
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert "(n = 12)" in errors[0]
    assert "(n = 2)" in errors[1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sensitivity>=0.8", "expected FIGURE(FINDING)>=NUMBER"),
        ("recall(skull_fracture)>=0.8", "expected FIGURE(FINDING)>=NUMBER"),
        ("sensitivity(skull_fracture)>=80", "from 0 to 1"),
        ("sensitivity(skull_fractura)>=0.8", "expected one of the labelled findings"),
    ],
)
def test_a_requirement_that_means_nothing_is_refused(again, text, reason):
    result, _ = again("--require", text)
    assert result.exit_code == 1
    assert reason in lines_of(result)


def test_the_prevalence_of_a_finding_that_is_not_evaluated_is_refused(again):
    result, _ = again("--prevalence", "skull_fractura=0.01")
    assert result.exit_code == 1
    assert "--prevalence 'skull_fractura': expected one of the labelled findings" in lines_of(
        result
    )


def test_labels_that_fit_badly_are_counted_and_listed(phantoms, again, tmp_path):
    lines = (phantoms / "labels.csv").read_text().splitlines()
    header, rows = lines[0], lines[1:]
    labels = tmp_path / "bad.csv"
    table = [f"{header},remark,pneumothorax", *(f"{row},x,0" for row in rows[:9])]
    table += [
        f"{rows[0]},x,0",
        f"{rows[1].replace(',1,0,0', ',0,0,0')},x,0",
        "gone,p9,M,50,1,0,0,x,0",
    ]
    labels.write_text("\n".join(table))
    result, document = again(labels=labels)
    assert result.exit_code == 0, lines_of(result)
    flow = document["flow"]
    assert flow["label_rows"] == 10
    assert flow["labels_without_study"] == ["gone"]
    assert len(flow["studies_without_label"]) == 3
    assert flow["findings_not_asked"] == ["pneumothorax"]
    notes = " ".join(flow["notes"])
    assert "'remark'" in notes
    assert "contradicted" in notes
    (bleed,) = (one for one in document["findings"] if one["code"] == BLEED)
    assert (bleed["positives"], bleed["negatives"], bleed["unlabelled"]) == (2, 6, 4)
    assert bleed["area"]["positives"] + bleed["area"]["negatives"] == 8
    printed = lines_of(result)
    assert "labels without a study: 1 (gone)" in printed
    assert "studies without a label: 3" in printed


def test_labels_of_one_class_give_counts_and_no_area(phantoms, again, tmp_path):
    labels = tmp_path / "one_class.csv"
    labels.write_text("study,mass_effect\n" + "".join(f"case{i:02},0\n" for i in range(11)))
    result, document = again("--require", "auc(mass_effect)>=0.1", labels=labels)
    assert result.exit_code == 1
    assert "there is no figure (n = 11)" in result.stderr
    result, document = again(labels=labels)
    (finding,) = document["findings"]
    assert (finding["positives"], finding["negatives"]) == (0, 11)
    assert finding["area"]["value"] is None
    assert finding["roc"] == []
    assert finding["primary"]["sensitivity"]["rate"] is None
    assert finding["primary"]["specificity"]["trials"] == 11
    assert "11 of 11 studies name no patient" in " ".join(document["flow"]["notes"])


def test_a_folder_one_level_too_deep_is_one_line(phantoms, tmp_path):
    result = evaluate(phantoms / "scans" / "case03", "--labels", phantoms / "labels.csv",
                      "--out", tmp_path / "out")  # fmt: skip
    assert result.exit_code == 1
    assert "one folder too deep" in lines_of(result)
    assert not (tmp_path / "out").exists()


def test_findings_that_nothing_asks_for_are_refused(phantoms, tmp_path):
    labels = tmp_path / "chest.csv"
    labels.write_text("study,pneumothorax\ncase00,1\ncase01,0\n")
    result = evaluate(phantoms / "scans", "--labels", labels, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "asks for any of them" in lines_of(result)
    assert not (tmp_path / "out").exists()
