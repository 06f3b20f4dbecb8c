"""Progress and timing of the stages of one study."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from edge_medgemma.runtime.tracing.spans import Span, SpanRecorder

Progress = Callable[[str, int, int], None]
"""Called with the stage, the steps done and the steps in all."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Report nothing."""


class StageTracker:
    """Times the stages of one study and reports the steps inside them."""

    def __init__(self, on_progress: Progress = no_progress) -> None:
        """Begin with no stage."""
        self._on_progress = on_progress
        self._recorder = SpanRecorder()

    @property
    def spans(self) -> tuple[Span, ...]:
        """Finished stages, each ahead of its steps."""
        return self._recorder.spans

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Time the block as the stage `name`."""
        return self._recorder.span(name)

    def step(self, stage: str, done: int, total: int) -> None:
        """Record and report a step of a stage."""
        self._recorder.step(f"{stage} {done}")
        self._on_progress(stage, done, total)

    def steps_of(self, stage: str) -> Callable[[int, int], None]:
        """A function to call with (done, total) after each step of `stage`."""
        return partial(self.step, stage)
