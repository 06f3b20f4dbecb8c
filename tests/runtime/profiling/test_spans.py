import pytest

from edge_medgemma.runtime.profiling.spans import Span, SpanRecorder, total_s


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


def test_totals_add_up_by_name() -> None:
    spans = [Span("a", 0, 1.0, 0), Span("b", 1, 2.0, 0), Span("a", 3, 0.5, 0)]
    assert total_s(spans) == {"a": 1.5, "b": 2.0}
