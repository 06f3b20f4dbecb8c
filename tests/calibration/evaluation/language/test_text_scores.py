import pytest

from edge_medgemma.calibration.evaluation.language.text_scores import (
    is_exact,
    normalised,
    token_f1,
)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (" Yes. ", "yes"), ("TRUE", "yes"), ("nope!", "no"), ("是的。", "yes"), ("没有", "no"),
        ("X-ray", "xray"), ("x ray (PA view)", "xray"), ("Yes (probably)", "yes"),
        ("Left,  lower lobe", "left lower lobe"), ("no fracture", "no fracture"), ("", ""),
        ("右肺（上叶）", "右肺"), ("Yes, there is", "yes there is"),
    ],
)  # fmt: skip
def test_the_order_of_normalising(answer: str, expected: str) -> None:
    assert normalised(answer) == expected


def test_a_sentence_that_begins_with_yes_is_not_the_answer_yes() -> None:
    """Exact means exact: harnesses that look for the word anywhere count more."""
    assert not is_exact("Yes, there is a bleed", "yes")


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("the left lung", "left lung", 0.8),
        ("lung", "lung lung", 2 / 3),
        ("left left", "left right", 0.5),
        ("", "lung", 0.0),
        ("heart", "lung", 0.0),
        ("左肺", "左肺上叶", 2 / 3),
    ],
)
def test_token_f1_counts_words_as_often_as_they_stand(
    answer: str, reference: str, expected: float
) -> None:
    assert token_f1(answer, reference) == pytest.approx(expected)
