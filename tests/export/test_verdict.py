"""Which difference fails an engine, and how much its precision allows."""

from dataclasses import replace

import pytest

from edge_medgemma.export.verification.comparison import (
    CaseComparison,
    GreedyComparison,
    IdDifference,
    LogitComparison,
)
from edge_medgemma.export.verification.verdict import judge, thresholds_for
from edge_medgemma.runtime.manifest import Precision

FP32 = Precision("fp32", "fp32", "fp32", "fp32", 0)
INT4 = Precision("int4", "int8", "head", "fp32", 32, decode_kv_cache="int8", draft_head="int4")
NAN = float("nan")


def _compared(
    *,
    pixels: float = 0.0,
    cosine: float = 1.0,
    kl_nats: float = 0.0,
    top1: float = 1.0,
    tie_nats: float = 5.0,
    equal: int = 64,
    lead_nats: float = 0.0,
) -> CaseComparison:
    others = round((1 - top1) * 64)
    logits = LogitComparison(0.0, 0.0, 1.0, 64, kl_nats, top1, (tie_nats,) * others)
    greedy = GreedyComparison(equal, 64, lead_nats)
    return CaseComparison("1 image", 99, None, pixels, cosine, logits, greedy)


SAME = _compared()
OTHER_IDS = replace(SAME, id_difference=IdDifference(3, 7, None, "a", "nothing"), logits=None)


@pytest.mark.parametrize(
    ("comparison", "stage"),
    [
        (SAME, None),
        (OTHER_IDS, "ids"),
        (_compared(pixels=0.008, cosine=0.5, kl_nats=3, top1=0), "pixels"),
        (_compared(pixels=float("inf")), "pixels"),
        (_compared(cosine=0.9, kl_nats=3, top1=0), "image features"),
        (_compared(kl_nats=2e-6), "logits"),
        (_compared(top1=63 / 64), "logits"),
        (_compared(equal=63, lead_nats=1e-9), "greedy tokens"),
        (_compared(equal=63, lead_nats=0.0), "greedy tokens"),
        (_compared(pixels=NAN), "pixels"),
        (_compared(cosine=NAN), "image features"),
        (_compared(kl_nats=NAN), "logits"),
    ],
)
def test_the_first_stage_past_its_limit_is_named(
    comparison: CaseComparison, stage: str | None
) -> None:
    verdict = judge([SAME, comparison], thresholds_for(FP32))
    assert (verdict.is_pass, verdict.stage) == (stage is None, stage), verdict
    assert stage is None or verdict.reason.startswith(f"{stage}, prompt '1 image': ")


def test_an_earlier_stage_of_a_later_prompt_comes_first() -> None:
    later = replace(OTHER_IDS, prompt="3 images")
    verdict = judge([_compared(kl_nats=1.0), later], thresholds_for(FP32))
    assert (verdict.stage, verdict.prompt) == ("ids", "3 images")
    assert "at position 3 the engine has token 7 ('a')" in verdict.reason
    assert "the checkpoint's processor no token" in verdict.reason


@pytest.mark.parametrize(
    ("precision", "kind"),
    [
        (FP32, "fp32"),
        (replace(FP32, draft_head="int4"), "fp32"),  # drafts; the head itself decides
        (replace(FP32, activations="bf16", cache="bf16"), "bf16"),
        (replace(FP32, vision="int8"), "int8"),
        (replace(FP32, decode_kv_cache="int8"), "int8"),
        (replace(FP32, embedding="int8"), "int8"),
        (INT4, "int4"),
    ],
)
def test_the_coarsest_part_sets_the_limits(precision: Precision, kind: str) -> None:
    assert thresholds_for(precision).precision == kind


def test_a_float_tower_may_lose_nothing_in_an_int4_engine() -> None:
    assert judge([_compared(cosine=0.9995)], thresholds_for(INT4)).stage == "image features"
    assert judge([_compared(kl_nats=0.1, top1=0.9)], thresholds_for(INT4)).is_pass
    assert judge([_compared(kl_nats=0.4)], thresholds_for(INT4)).stage == "logits"
    assert judge([_compared(top1=0.62)], thresholds_for(INT4)).stage == "logits"
    assert judge([_compared(top1=0.62, tie_nats=0.7)], thresholds_for(INT4)).is_pass
    assert judge([_compared(top1=0.62, tie_nats=NAN)], thresholds_for(INT4)).stage == "logits"
    assert judge([_compared(top1=0.98, tie_nats=1e-9)], thresholds_for(FP32)).stage == "logits"


def test_quantised_answers_part_only_where_the_choice_was_close() -> None:
    limits = thresholds_for(INT4)
    assert judge([_compared(equal=9, lead_nats=0.4)], limits).is_pass
    assert judge([_compared(equal=9, lead_nats=4.0)], limits).stage == "greedy tokens"
    assert judge([_compared(equal=9, lead_nats=NAN)], limits).stage == "greedy tokens"


def test_max_kl_judges_answers_alone_and_nothing_ahead_of_them() -> None:
    limits = thresholds_for(INT4, max_kl_nats=1.0)
    assert judge([_compared(kl_nats=0.8, top1=0.5, equal=0, lead_nats=9)], limits).is_pass
    assert judge([_compared(kl_nats=1.1)], limits).stage == "logits"
    assert judge([_compared(kl_nats=NAN)], limits).stage == "logits"
    assert judge([_compared(pixels=0.01)], limits).stage == "pixels"
