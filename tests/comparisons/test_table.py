from pathlib import Path

import pytest
from comparisons.table import Pair, Spread, agreement, load_pairs, markdown, ratios, save_pairs

RECORDED = Pair(
    peer="other",
    about="other 1.0",
    ours={"vision": [10.0, 8.0, 9.0], "decode": [0.05, 0.04], "job": [70.0], "peak": [3e9]},
    theirs={"vision": [25.0, 30.0, 27.0], "decode": [0.1, 0.1], "job": [280.0], "peak": [6e9]},
    cannot={"decode_8k": "its cache ends at 4096"},
    notes={"job": "with its own start"},
    answers=[1.0, -2.0],
    answers_ours=[1.5, -2.25],
    report=[7, 8, 9],
    report_ours=[7, 1, 9],
)


def test_ratios_are_of_the_samples_taken_together():
    assert ratios(RECORDED, "vision") == [2.5, 3.75, 3.0]
    assert Spread.of(ratios(RECORDED, "vision")) == Spread(2.5, 3.0, 3.75)


def test_the_table_has_costs_and_their_inverse_in_the_right_columns():
    lines = markdown([RECORDED]).splitlines()
    vision = next(line for line in lines if "vision" in line)
    assert vision.endswith("| native | other |  | 27 (25-30) | 9 (8-10) | 2.50-3.00-3.75 | 3 |")
    decode = next(line for line in lines if "decode, nothing" in line)
    assert decode.endswith("| native | other |  | 10 | 22.5 (20-25) | 2.00-2.25-2.50 | 2 |")
    peak = next(line for line in lines if "peak" in line)
    assert peak.endswith("| native | other |  | 6 | 3 | 2.00-2.00-2.00 | 1 |")


def test_what_a_peer_cannot_do_is_a_line_with_its_reason():
    text = markdown([RECORDED])
    assert "| decode behind 8k tokens, tok/s | native | other |  | cannot | | | |" in text
    assert "cannot decode_8k: its cache ends at 4096" in text


def test_a_value_that_was_not_plainly_measured_is_marked():
    text = markdown([RECORDED])
    assert "| native | other |  | 280* | 70 | 4.00-4.00-4.00 | 1 |" in text
    assert "* with its own start" in text


def test_agreement_counts_equal_tokens_from_the_first():
    assert agreement(RECORDED) == (
        "log-odds of the findings differ from ours by 0.5 at most, the first 1 of 3 tokens are "
        "the same"
    )


def test_samples_survive_their_file(tmp_path: Path):
    path = tmp_path / "results.json"
    assert load_pairs(path) == {}
    save_pairs(path, {"other": RECORDED})
    assert load_pairs(path) == {"other": RECORDED}


def test_a_measure_that_one_side_lacks_makes_no_line():
    pair = Pair("other", ours={"job": [1.0]}, theirs={"job": []})
    assert "whole job" not in markdown([pair])


def test_spread_of_nothing_is_an_error():
    with pytest.raises(ValueError):
        Spread.of([])
