import pytest

from edge_medgemma.runtime.tracing.spans import Span, SpanRecorder, total_s


def test_spans_nest_in_the_order_they_begin() -> None:
    recorder = SpanRecorder()
    with recorder.span("outer"), recorder.span("inner"):
        pass
    with recorder.span("next"):
        pass
    assert [(s.name, s.depth) for s in recorder.spans] == [("outer", 0), ("inner", 1), ("next", 0)]
    outer, inner, later = recorder.spans
    assert outer.start_s <= inner.start_s <= later.start_s
    assert outer.duration_s >= inner.duration_s >= 0


def test_a_span_is_recorded_where_its_block_fails() -> None:
    recorder = SpanRecorder()
    with pytest.raises(ValueError, match="broken"), recorder.span("vision"):
        raise ValueError("broken")
    assert [s.name for s in recorder.spans] == ["vision"]
    with recorder.span("after"):
        pass
    assert recorder.spans[1].depth == 0


def test_steps_fill_the_span_around_them() -> None:
    recorder = SpanRecorder()
    with recorder.span("vision"):
        recorder.step("vision 1")
        with recorder.span("load"):
            pass
        recorder.step("vision 2")
    vision, first, load, second = recorder.spans
    assert [s.depth for s in recorder.spans] == [0, 1, 1, 1]
    assert first.start_s == vision.start_s
    assert second.start_s == load.stop_s
    assert second.stop_s <= vision.stop_s


def test_a_full_recorder_drops_spans_and_goes_on() -> None:
    recorder = SpanRecorder(maximum=1)
    with recorder.span("kept"):
        recorder.step("dropped")
        with recorder.span("dropped too"):
            pass
    assert [s.name for s in recorder.spans] == ["kept"]
    empty = SpanRecorder(maximum=0)
    with empty.span("anything"):
        empty.step("one")
    assert empty.spans == ()


def test_totals_add_up_the_outermost_spans_by_name() -> None:
    spans = [
        Span("a", 0, 1.0, 0),
        Span("b", 0.2, 0.5, 1),
        Span("c", 1, 2.0, 0),
        Span("a", 3, 0.5, 0),
    ]
    assert total_s(spans) == {"a": 1.5, "c": 2.0}
