import re
from pathlib import Path

from support.fake_engine import FakeEngine
from support.synthetic_series import write_head_ct

from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.triage.protocol import load_protocol

DOCS = Path(__file__).resolve().parents[2] / "docs"


def block(page: str, language: str) -> str:
    """The one code block of a language on a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    (code,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return code


def test_the_documented_example_runs(tmp_path, monkeypatch, capsys) -> None:
    engine = FakeEngine()
    engine.reply = engine.tokenizer.encode("Normal ventricles.")
    monkeypatch.setattr(Engine, "open", lambda directory, threads: engine)
    monkeypatch.chdir(tmp_path)
    write_head_ct(tmp_path / "scan", lesion=range(4, 12))
    exec(compile(block("reference/python-api.md", "python"), "python-api.md", "exec"), {})  # noqa: S102 (our own document)
    printed = capsys.readouterr().out
    assert printed.startswith("Study 1 critical")
    assert "Intracranial haemorrhage" in printed
    assert printed.count("Normal ventricles.") == 2
    assert (tmp_path / "out" / "triage.json").is_file()
    assert (tmp_path / "out" / "report.html").is_file()


def test_the_documented_protocol_loads(tmp_path) -> None:
    path = tmp_path / "knee_mr.toml"
    path.write_text(block("reference/protocols.md", "toml"), encoding="utf-8")
    assert load_protocol(str(path)).name == "knee_mr"
