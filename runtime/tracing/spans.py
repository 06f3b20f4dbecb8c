"""Where the time goes: named, nested stretches of wall-clock time."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MAXIMUM_SPANS = 100_000
"""A recorder keeps no more: what runs for months must not grow."""


@dataclass(frozen=True, slots=True)
class Span:
    """One stretch of work."""

    name: str
    start_s: float
    """On the clock of `time.perf_counter`, so that spans of several recorders fit together."""
    duration_s: float
    depth: int
    """0 for a span that no other span of the recorder surrounds."""

    @property
    def stop_s(self) -> float:
        """On the clock of `time.perf_counter`."""
        return self.start_s + self.duration_s


class SpanRecorder:
    """Collects spans in the order they begin.

    >>> recorder = SpanRecorder()
    >>> with recorder.span("vision"):
    ...     recorder.step("slice 1")
    >>> [(span.name, span.depth) for span in recorder.spans]
    [('vision', 0), ('slice 1', 1)]
    """

    def __init__(self, maximum: int = MAXIMUM_SPANS) -> None:
        """`maximum` spans are kept; with 0 nothing is."""
        self._maximum = maximum
        self._spans: list[Span | None] = []
        self._depth = 0
        self._mark_s = time.perf_counter()

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Time the block; it is recorded also where the block raises."""
        slot, depth = len(self._spans), self._depth
        is_kept = slot < self._maximum
        if is_kept:
            self._spans.append(None)  # keeps the place of a parent ahead of its children
        self._depth += 1
        self._mark_s = start_s = time.perf_counter()
        try:
            yield
        finally:
            self._depth -= 1
            self._mark_s = time.perf_counter()
            if is_kept:
                self._spans[slot] = Span(name, start_s, self._mark_s - start_s, depth)

    def step(self, name: str) -> None:
        """Record the time since the last step, or the last beginning or end of a span."""
        start_s, self._mark_s = self._mark_s, time.perf_counter()
        if len(self._spans) < self._maximum:
            self._spans.append(Span(name, start_s, self._mark_s - start_s, self._depth))

    @property
    def spans(self) -> tuple[Span, ...]:
        """The finished spans, each ahead of those it surrounds."""
        return tuple(span for span in self._spans if span is not None)


def total_s(spans: Iterable[Span]) -> dict[str, float]:
    """Seconds per name of the outermost spans, in order of first beginning; they add up."""
    totals: dict[str, float] = {}
    for span in spans:
        if span.depth == 0:
            totals[span.name] = totals.get(span.name, 0.0) + span.duration_s
    return totals
