"""`evaluate reports`: given reports, and reports that the tiny engine writes on pictures."""

import csv
import json
import sys
import types
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import f1_score, precision_score, recall_score
from support.schemas import assert_valid
from support.vqa_datasets import write_jpeg

from edge_medgemma.calibration.evaluation.language.finding_mentions import Mention, mentions
from edge_medgemma.calibration.evaluation.language.report_metrics import bleu, radgraph, rouge_l
from edge_medgemma.calibration.evaluation.language.report_results import (
    count_findings,
    generate_reports,
)
from edge_medgemma.calibration.evaluation.language.report_sets import read_reports
from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.errors import DatasetError, DependencyError, EngineError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.triage.protocol import load_protocol

PAIRS = [
    ("The heart is enlarged. No pleural effusion. CANARY", "Cardiomegaly. Small pleural effusion."),
    ("Right pneumothorax.", "There is a right pneumothorax."),
    ("Normal heart size. No consolidation.", ""),
    ("Left pleural effusion, and pneumonia.", "Left effusion. No consolidation. CANARY"),
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "reports.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("reference", "report"), *PAIRS])
    return path


def _run(*arguments: object):
    return CliRunner().invoke(cli, ["evaluate", "reports", *map(str, arguments)])


def _write_open_i(folder: Path, count: int = 2) -> Path:
    """Reports of Open-I, the last one without its picture, and one without text."""
    for number in range(count + 2):
        text = "" if number == count + 1 else "No pneumothorax."
        (folder / "ecgen-radiology").mkdir(parents=True, exist_ok=True)
        (folder / "ecgen-radiology" / f"{number}.xml").write_text(
            f'<eCitation><uId id="CXR{number}"/><AbstractText Label="INDICATION">Cough.</AbstractText>'
            f'<AbstractText Label="FINDINGS">{text}</AbstractText>'
            f'<parentImage id="CXR{number}_IM-1"/></eCitation>'
        )
        if number < count:
            write_jpeg(folder / "NLMCXR_png" / f"CXR{number}_IM-1.png", number)
    return folder


@pytest.mark.command("evaluate reports")
def test_given_reports_are_counted_and_no_text_is_kept(tmp_path: Path, table: Path) -> None:
    out = tmp_path / "out"
    result = _run(table, "--protocol", "chest_xray", "--out", out, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    assert_valid(out / "reports.json", "reports")
    document = json.loads(result.stdout)
    assert document["reports"] == 4 and document["empty_reports"] == 1
    tables = {one["code"]: one for one in document["findings"]["tables"]}
    effusion = tables["pleural_effusion"]
    assert (effusion["both"], effusion["report_only"], effusion["reference_negates"]) == (1, 1, 1)
    consolidation = tables["consolidation"]
    assert (consolidation["reference_only"], consolidation["report_negates"]) == (1, 1)
    assert consolidation["f1"] == 0 and tables["free_gas"]["f1"] is None
    assert [metric["reports"] for metric in document["metrics"]] == [4, 4]
    assert "tok:13a" in document["metrics"][0]["version"]
    for file in out.iterdir():
        assert "CANARY" not in file.read_text()
    printed = _run(table, "--protocol", "chest_xray", "--out", out)
    assert "tok:13a" in printed.stdout and "CANARY" not in printed.output


def test_figures_are_those_of_the_libraries() -> None:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu import corpus_bleu

    references, reports = zip(*PAIRS, strict=True)
    assert bleu(reports, references).value == pytest.approx(
        corpus_bleu(list(reports), [list(references)]).score / 100
    )
    scorer = RougeScorer(["rougeL"])
    expected = [scorer.score(a, b)["rougeL"].fmeasure for a, b in PAIRS]
    metric, scores = rouge_l(reports, references)
    assert scores == pytest.approx(expected)
    assert metric.value == pytest.approx(np.mean(expected))
    assert metric.low is not None and metric.low < metric.value < metric.high


def test_findings_are_scored_as_scikit_learn_scores_them() -> None:
    rng = np.random.default_rng(0)
    protocol = load_protocol("chest_xray")
    words = ["Pneumothorax.", "Cardiomegaly.", "No effusion.", "Effusion.", "Pneumonia."]
    texts = [" ".join(rng.choice(words, 2)) for _ in range(80)]
    others = [" ".join(rng.choice(words, 2)) for _ in range(80)]
    entry, _, _ = count_findings(protocol, texts, others)
    codes = [finding.code for finding in protocol.findings]
    said, expected = (
        np.array([[mentions(t, codes)[c] is Mention.MENTIONED for c in codes] for t in side])
        for side in (texts, others)
    )
    for place, one in enumerate(entry.tables[:-1]):
        truth, found = expected[:, place], said[:, place]
        if truth.any() and found.any():
            assert one.recall.rate == pytest.approx(recall_score(truth, found))
            assert one.precision.rate == pytest.approx(precision_score(truth, found))
            assert one.f1 == pytest.approx(f1_score(truth, found))
    together = entry.tables[-1]
    assert together.f1 == pytest.approx(f1_score(expected.ravel(), said.ravel()))
    assert together.f1_low is not None and together.f1_low < together.f1 < together.f1_high


def test_an_engine_reports_on_pictures_and_goes_on_after_a_stop(
    tmp_path: Path, tiny_engine: Engine, tiny_engine_directory: Path
) -> None:
    folder, out = _write_open_i(tmp_path / "open-i", 3), tmp_path / "out"
    reports = read_reports(folder)
    assert reports.notes == (
        "1 report without findings and impression left out",
        "1 report without a picture in the folder left out",
    )

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_reports(tiny_engine, reports, 4, out / "generated.jsonl", stop)
    result = _run(folder, "--engine", tiny_engine_directory, "--out", out, "--max-tokens", 4)
    assert result.exit_code == 0, (result.output, result.exception)
    assert len((out / "generated.jsonl").read_text().splitlines()) == 1 + 3
    document = json.loads((out / "reports.json").read_text())
    assert document["layout"] == "open-i" and document["prompt"]["name"] == "describe"
    assert document["engine"]["manifest_sha256"] == tiny_engine.manifest.sha256
    whole = generate_reports(tiny_engine, reports, 4, tmp_path / "whole.jsonl")
    assert generate_reports(tiny_engine, reports, 4, out / "generated.jsonl") == whole


def test_pictures_may_stand_in_a_table(tmp_path: Path, tiny_engine_directory: Path) -> None:
    write_jpeg(tmp_path / "a.png", 1)
    (tmp_path / "t.csv").write_text("reference,picture\nNo effusion.,a.png\n")
    arguments = [tmp_path / "t.csv", "--protocol", "chest_xray", "--out", tmp_path / "out"]
    result = _run(*arguments, "--engine", tiny_engine_directory, "--max-tokens", 2)
    assert result.exit_code == 0, (result.output, result.exception)
    assert isinstance(_run(*arguments).exception, SystemExit)
    assert "name an --engine" in _run(*arguments).output
    demo = _run(*arguments, "--engine", BUILTIN_ENGINE)
    assert isinstance(demo.exception, EngineError)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("report\nNo effusion.\n", "expected 'reference', and 'report' or 'picture'"),
        ("reference,report\n,No effusion.\n", "line 2: the reference is empty"),
        ("reference,picture\nNo effusion.,../a.png\n", "expected a picture beside the table"),
    ],
)
def test_another_table_is_refused_by_one_line(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(DatasetError, match=words):
        read_reports(tmp_path / "t.csv")


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no report of Open-I"):
        read_reports(tmp_path)
    folder = _write_open_i(tmp_path / "open-i", 0)
    with pytest.raises(DatasetError, match="none of the 2 reports"):
        read_reports(folder)
    bomb = '<!DOCTYPE a [<!ENTITY b "c">]><eCitation>&b;</eCitation>'
    (folder / "ecgen-radiology" / "0.xml").write_text(bomb)
    with pytest.raises(DatasetError, match="declares entities"):
        read_reports(folder)
    (folder / "ecgen-radiology" / "0.xml").write_text("<eCitation>")
    with pytest.raises(DatasetError, match="is not XML"):
        read_reports(folder)


def test_options_that_do_not_go_together_are_said(tmp_path: Path, table: Path) -> None:
    for arguments, words in (
        ((table,), "name the protocol"),
        ((table, "--metrics", "green"), "green is not offered; choose from"),
        ((table, "--metrics", "radgraph"), "--model FOLDER go together"),
        ((table, "--model", tmp_path), "--model FOLDER go together"),
        ((table, "--metrics", "bleu", "--engine", tmp_path), "brings its reports"),
    ):
        result = _run(*arguments, "--out", tmp_path / "out")
        assert result.exit_code == click.UsageError.exit_code
        assert words in " ".join(result.output.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("library", ["sacrebleu", "rouge_score"])
def test_a_missing_library_is_said_with_what_to_install(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    result = _run(table, "--protocol", "chest_xray", "--out", tmp_path / "out")
    assert isinstance(result.exception, DependencyError)
    assert "pip install '.[language]'" in str(result.exception)
    alone = _run(
        table, "--protocol", "chest_xray", "--metrics", "findings", "--out", tmp_path / "out"
    )
    assert alone.exit_code == 0, (alone.output, alone.exception)


def test_radgraph_needs_local_weights_and_its_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DatasetError, match="holds no weights of RadGraph"):
        radgraph(["a"], ["a"], tmp_path)
    (tmp_path / "radgraph-xl").mkdir()
    (tmp_path / "radgraph-xl" / "config.json").write_text("{}")
    with pytest.raises(DependencyError, match=r"pip install radgraph==0\.1\.18"):
        radgraph(["a"], ["a"], tmp_path)


def test_radgraph_is_called_as_version_0_1_18_declares_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in of the library's signature: its weights cannot be had here."""
    (tmp_path / "radgraph-xl").mkdir()
    (tmp_path / "radgraph-xl" / "config.json").write_text("{}")

    class F1RadGraph:
        def __init__(self, reward_level: str, model_type: str, model_cache_dir: str) -> None:
            assert (reward_level, model_type) == ("partial", "radgraph-xl")
            assert Path(model_cache_dir) == tmp_path

        def __call__(self, hyps: list[str], refs: list[str]):
            if "fail" in hyps:
                raise RuntimeError("no weights")
            return 0.75, [1.0, 0.5], [], []

    module = types.ModuleType("radgraph")
    module.F1RadGraph = F1RadGraph  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "radgraph", module)
    monkeypatch.setattr(
        "edge_medgemma.calibration.evaluation.language.report_metrics._version", lambda _: "0.1.18"
    )
    found = radgraph(["a", "b"], ["a", "c"], tmp_path)
    assert (found.value, found.reports) == (0.75, 2)
    assert found.version == "radgraph 0.1.18, radgraph-xl, partial"
    with pytest.raises(DatasetError, match=r"fails with the weights in .*no weights"):
        radgraph(["fail"], ["a"], tmp_path)
