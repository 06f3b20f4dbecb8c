"""Where the time goes: named, nested stretches of wall-clock time."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """One stretch of work."""

    name: str
    start_s: float
    """Since the recorder was made."""
    duration_s: float
    depth: int
    """0 for a span that no other span of the recorder surrounds."""


class SpanRecorder:
    """Collects spans in the order they begin.

    >>> recorder = SpanRecorder()
    >>> with recorder.span("vision"):
    ...     pass
    >>> [span.name for span in recorder.spans]
    ['vision']
    """

    def __init__(self) -> None:
        self._origin_s = time.perf_counter()
        self._spans: list[Span | None] = []
        self._depth = 0

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Time the block; it is recorded also where the block raises."""
        slot, depth = len(self._spans), self._depth
        self._spans.append(None)  # keeps the place of a parent ahead of its children
        self._depth += 1
        start_s = time.perf_counter()
        try:
            yield
        finally:
            self._depth -= 1
            duration_s = time.perf_counter() - start_s
            self._spans[slot] = Span(name, start_s - self._origin_s, duration_s, depth)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The finished spans, each ahead of those it surrounds."""
        return tuple(span for span in self._spans if span is not None)


def total_s(spans: Iterable[Span]) -> dict[str, float]:
    """Seconds per name, summed over the spans of that name, in order of first beginning."""
    totals: dict[str, float] = {}
    for span in spans:
        totals[span.name] = totals.get(span.name, 0.0) + span.duration_s
    return totals
