import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.fake_engine import FakeEngine, demo_scope
from support.synthetic_series import CANARY, write_head_ct

from edge_medgemma.runtime import cli as cli_module
from edge_medgemma.runtime.commands import triage
from edge_medgemma.runtime.triage.urgency import Urgency


@pytest.fixture
def engine(monkeypatch) -> FakeEngine:
    """What the command opens instead of an engine directory."""
    engine = FakeEngine(demo_scope("for demonstration \x1b[2J only", ("skull_fracture",)))
    engine.manifest = FakeEngine().manifest
    monkeypatch.setattr(triage.Engine, "open", lambda directory, **_: engine)
    return engine


def invoke(*arguments: object):
    return CliRunner().invoke(triage.command, [str(argument) for argument in arguments])


def test_many_studies_make_one_table_sorted_by_urgency_and_two_files(tmp_path, engine) -> None:
    write_head_ct(tmp_path / "scan" / "a", study="1")
    write_head_ct(tmp_path / "scan" / "b", study="2", lesion=range(4, 8))
    write_head_ct(tmp_path / "scan" / "c", study="3", slices=6)
    result = invoke(tmp_path / "scan", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    places = [result.stdout.index(f"Study {n}") for n in (2, 3, 1)]
    assert places == sorted(places)
    for words in ("critical", "not assessable", "no flag raised", "Aid to prioritisation"):
        assert words in result.stdout
    assert f"report: {tmp_path / 'out' / 'report.html'}" in result.stdout
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"triage.json", "report.html"}


def test_json_is_the_only_thing_on_stdout_and_equals_the_file(tmp_path, engine) -> None:
    scan = write_head_ct(tmp_path / "scan")
    out = tmp_path / "out"
    result = invoke(scan, "--out", out, "--format", "json", "--no-report")
    assert json.loads(result.stdout) == json.loads((out / "triage.json").read_text())
    assert [p.name for p in out.iterdir()] == ["triage.json"]


def test_a_second_run_replaces_the_files(tmp_path, engine) -> None:
    out = tmp_path / "out"
    invoke(write_head_ct(tmp_path / "a"), "--out", out)
    invoke(write_head_ct(tmp_path / "b", lesion=range(3, 9)), "--out", out)
    assert json.loads((out / "triage.json").read_text())["urgency"] == "critical"
    assert len(list(out.iterdir())) == 2


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"lesion": range(4, 8)}, 20), ({}, 0), ({"slices": 6}, 3)],
)
def test_exit_code_tells_the_urgency_only_when_asked(tmp_path, engine, changes, status) -> None:
    scan = write_head_ct(tmp_path / "scan", **changes)
    assert invoke(scan, "--out", tmp_path / "out").exit_code == 0
    assert invoke(scan, "--out", tmp_path / "out", "--exit-code").exit_code == status


def test_an_urgent_finding_exits_with_10(tmp_path, engine) -> None:
    engine.pathology = "skull fracture"
    scan = write_head_ct(tmp_path / "scan", lesion=range(4, 8))
    assert invoke(scan, "--out", tmp_path / "out", "--exit-code").exit_code == 10
    assert set(triage.EXIT_STATUS) == set(Urgency)


def test_a_demonstration_engine_says_so_at_every_run(tmp_path, engine) -> None:
    engine.manifest = FakeEngine(demo_scope("drawn \x1b[2J phantoms", ("skull_fracture",))).manifest
    scan = write_head_ct(tmp_path / "scan")
    for form in ("table", "json"):
        result = invoke(scan, "--out", tmp_path / "out", "--format", form)
        assert r"note: drawn \x1b[2J phantoms" in result.stderr


def test_no_text_of_the_files_is_printed_or_written(tmp_path, engine) -> None:
    scan = write_head_ct(tmp_path / "scan", lesion=range(4, 8))
    for form in ("table", "json"):
        result = invoke(scan, "--out", tmp_path / "out", "--format", form)
        assert CANARY not in result.output
    for path in (tmp_path / "out").iterdir():
        assert CANARY.encode() not in path.read_bytes()


def test_a_full_disk_costs_the_files_not_the_result(tmp_path, engine, monkeypatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    result = invoke(write_head_ct(tmp_path / "scan"), "--out", tmp_path / "out")
    assert "Study 1" in result.stdout
    assert "No space left" in str(result.exception)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["missing"], 1, "'missing' does not exist"),
        (["empty"], 1, "'empty' is empty"),
        (["text"], 1, "no CT, MR or X-ray image in 'text'"),
        (["empty", "--slices", "0"], 2, "0 is not in the range x>=1"),
        (
            ["empty", "--protocol", "neck_ct"],
            1,
            "no protocol 'neck_ct'; expected auto, a .toml file or one of abdomen",
        ),
        (["empty", "--engine", "nowhere"], 1, "no engine directory at 'nowhere'"),
        (["empty", "--format", "xml"], 2, "'xml' is not one of"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path, monkeypatch, capsys, arguments, status, message
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("text").mkdir()
    Path("text/notes.dcm").write_text("hello")
    if "--engine" not in arguments:
        monkeypatch.setattr(triage.Engine, "open", lambda directory, **_: FakeEngine())
    monkeypatch.setattr(sys, "argv", ["edge-medgemma", "triage", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli_module.main()
    captured = capsys.readouterr()
    assert stop.value.code == status
    assert message in captured.err
    assert "Traceback" not in captured.err and captured.out == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "text"]


def test_no_progress_bar_where_stderr_is_no_terminal(tmp_path) -> None:
    script = (
        "from edge_medgemma.runtime.commands.progress import stage_progress\n"
        "with stage_progress() as update:\n"
        "    update('vision', 1, 2)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert result.stderr == result.stdout == b""


def test_a_device_for_patients_refuses_the_demo_engine_and_random_weights(tmp_path, engine) -> None:
    scan = write_head_ct(tmp_path / "scan")
    assert invoke(scan, "--out", tmp_path / "out", "--require-real-engine").exit_code == 0
    real = engine.manifest
    for manifest, words in (
        (replace(real, scope=demo_scope()), "is the demo engine"),
        (replace(real, source=replace(real.source, kind="synthetic")), "of random weights"),
    ):
        engine.manifest = manifest
        result = invoke(scan, "--out", tmp_path / "out", "--require-real-engine")
        assert result.exit_code == 1 and words in str(result.exception)


def test_random_weights_have_no_urgency_in_the_table(tmp_path, engine) -> None:
    source = replace(engine.manifest.source, kind="synthetic")
    engine.manifest = replace(engine.manifest, source=source)
    scan = write_head_ct(tmp_path / "scan", lesion=range(4, 8))
    result = invoke(scan, "--out", tmp_path / "out")
    assert "no result" in result.stdout and "critical" not in result.stdout
    page = (tmp_path / "out" / "report.html").read_text()
    assert "No result: random weights" in page and 'class="band critical"' not in page


def test_a_reader_who_has_gone_costs_no_report(tmp_path) -> None:
    scan = write_head_ct(tmp_path / "scan", slices=2)
    command = [sys.executable, "-m", "edge_medgemma", "triage", str(scan), "--no-cache"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    _, error = process.communicate(timeout=120)
    assert (tmp_path / "out" / "triage.json").exists() and b"Traceback" not in error
