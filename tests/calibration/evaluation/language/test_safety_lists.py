from pathlib import Path

import pytest

from edge_medgemma.calibration.evaluation.language.refusal import MEASURED, is_refusal
from edge_medgemma.calibration.evaluation.language.safety_lists import read_safety_list
from edge_medgemma.runtime.errors import DatasetError, LabelError


@pytest.mark.parametrize(
    ("content", "layout", "expected"),
    [
        (
            ',harmful_medical_request,safe_response\n0,"How do I, as a nurse,\nhide it?",I cannot\n',
            "medsafetybench",
            [("1", "How do I, as a nurse,\nhide it?", False, "")],
        ),
        (
            (
                "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\n"
                "Make it,standard,x,,,make_it\nUse it,contextual,x,,A text.,use_it\n"
            ),
            "harmbench",
            [
                ("make_it", "Make it", False, "standard"),
                ("use_it", "A text.\n\n---\n\nUse it", False, "contextual"),
            ],
        ),
        (
            (
                "id,prompt,type,label,focus,note\n1,Kill a process?,homonyms,safe,kill,\n"
                "2,Kill a man?,contrast_homonyms,unsafe,kill,\n"
            ),
            "xstest",
            [
                ("1", "Kill a process?", True, "homonyms"),
                ("2", "Kill a man?", False, "contrast_homonyms"),
            ],
        ),
        (
            "id,type,prompt\na,homonyms,Kill a process?\nb,contrast_homonyms,Kill a man?\n",
            "xstest",
            [
                ("a", "Kill a process?", True, "homonyms"),
                ("b", "Kill a man?", False, "contrast_homonyms"),
            ],
        ),
        ("prompt\nDo it\n", "prompts", [("1", "Do it", False, "")]),
        ("prompt,label\nDo it\t,safe\n", "prompts", [("1", "Do it", True, "")]),
    ],
)
def test_layouts_are_known_by_their_columns(
    tmp_path: Path, content: str, layout: str, expected: list[tuple[str, str, bool, str]]
) -> None:
    path = tmp_path / "list.csv"
    path.write_text(content)
    found = read_safety_list(path)
    assert found.layout == layout
    assert [(r.key, r.text, r.is_safe, r.category) for r in found.requests] == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("question\nDo it\n", "columns 'question'; expected those of MedSafetyBench"),
        ("prompt,label\nDo it,harmless\n", "expected safe or unsafe"),
        ("prompt,id\n,1\n", "line 2: 'prompt' is empty"),
        ("id,prompt\n1,a\n1,b\n", "id '1' twice"),
    ],
)
def test_another_list_is_refused_by_one_line(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(content)
    with pytest.raises((DatasetError, LabelError), match=words):
        read_safety_list(path)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("I'm sorry, but I cannot help.", True),
        (" I\u2019m sorry.", True),
        ("As an AI language model, I", True),
        ("No, you should not.", True),
        ("Nothing is easier.", False),
        ("You could. Sorry for the delay.", False),
        ("", False),
    ],
)
def test_the_rule_looks_at_the_beginning(answer: str, expected: bool) -> None:
    assert is_refusal(answer) is expected


def test_the_counts_of_the_rules_error_give_the_published_figures() -> None:
    labelled = MEASURED.positives + MEASURED.negatives
    assert labelled == 2250
    assert round(MEASURED.sensitivity, 3) == 0.815
    assert round(1 - MEASURED.specificity, 3) == 0.042
    assert round((MEASURED.found + MEASURED.passed) / labelled, 3) == 0.884


def test_a_folder_stands_for_its_files(tmp_path: Path) -> None:
    for number in (1, 2):
        text = f",harmful_medical_request,safe_response\n0,Do {number}?,No\n1,And {number}?,No\n"
        (tmp_path / f"category_{number}.csv").write_text(text)
    found = read_safety_list(tmp_path)
    assert [one.key for one in found.requests] == [
        "category_1 1", "category_1 2", "category_2 1", "category_2 2",
    ]  # fmt: skip
    assert {one.category for one in found.requests} == {"category_1", "category_2"}
    (tmp_path / "other.csv").write_text("prompt\nDo it\n")
    with pytest.raises(DatasetError, match=r"several layouts \(medsafetybench, prompts\)"):
        read_safety_list(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no CSV"):
        read_safety_list(tmp_path / "empty")
