"""The same stages with an engine that went through the export: random, but real."""

import numpy as np
import pytest
from support.synthetic_series import CANARIES, write_head_ct

from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.triage.chat_session import open_scan
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.report import Effort, FindingStatus
from edge_medgemma.runtime.triage.scoring.log_odds import AnswerTokens
from edge_medgemma.runtime.triage.triage_scan import triage_scan


@pytest.mark.parametrize("effort", list(Effort))
def test_a_scan_is_triaged(tiny_engine, tmp_path, effort, monkeypatch) -> None:
    monkeypatch.setattr("edge_medgemma.runtime.triage.scoring.questions.REASONING_TOKENS", 12)
    scan = write_head_ct(tmp_path / "scan", lesion=range(4, 8))
    options = TriageOptions(slices=10, baseline_folder=tmp_path / "controls", effort=effort)
    (study,) = triage_scan(tiny_engine, scan, options).studies
    assert {p.name for p in study.problems} <= {
        "reasoning_not_finished",
        "domain_not_measured",
    }
    assert len(study.slices) == 10
    for finding in study.findings:
        assert finding.status is not FindingStatus.NOT_ASSESSED
        assert np.isfinite(finding.score)


def test_a_question_is_answered(tiny_engine, tmp_path) -> None:
    scan = write_head_ct(tmp_path / "scan")
    conversation = open_scan(tiny_engine, scan, TriageOptions(slices=3))
    answers = [
        "".join(piece.text for piece in conversation.ask("What is there?", max_tokens=8))
        for _ in range(2)
    ]
    assert answers[0] == answers[1]


def test_answer_tokens_of_both_sides_differ(tiny_engine) -> None:
    tokens = AnswerTokens.of(tiny_engine.tokenizer)
    assert not set(tokens.yes) & set(tokens.no)


def test_the_ids_read_do_not_depend_on_text_of_the_files(
    tiny_engine, tmp_path, monkeypatch
) -> None:
    read: list[tuple[int, ...]] = []
    extend, score = Prefix.extend, Prefix.score

    def record_chunk(self, chunk, features=None, **options):
        read.append(chunk.ids)
        return extend(self, chunk, features, **options)

    def record_questions(self, questions, hidden_chunks=None):
        read.extend(map(tuple, questions))
        return score(self, questions, hidden_chunks)

    monkeypatch.setattr(Prefix, "extend", record_chunk)
    monkeypatch.setattr(Prefix, "score", record_questions)
    sequences = []
    for name, changes in (("marked", {}), ("clean", dict.fromkeys(CANARIES))):
        scan = write_head_ct(tmp_path / name, **changes)
        options = TriageOptions(slices=3, baseline_folder=tmp_path / f"controls of {name}")
        triage_scan(tiny_engine, scan, options)
        sequences.append(read.copy())
        read.clear()
    assert sequences[0] == sequences[1] and len(sequences[0]) > 8
