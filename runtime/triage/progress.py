"""Progress and timing of the stages of one study."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from edge_medgemma.runtime.thermal import read_throttling, was_slowed
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
        self._throttling = read_throttling()

    @property
    def spans(self) -> tuple[Span, ...]:
        """Finished stages, each ahead of its steps."""
        return self._recorder.spans

    @property
    def was_slowed(self) -> bool:
        """Whether heat slowed the processor since the beginning, as far as the machine tells."""
        return was_slowed(self._throttling, read_throttling())

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Time the block as the stage `name`."""
        return self._recorder.span(name)

    def step(self, stage: str, done: int, total: int) -> None:
        """Record and report a step of a stage."""
        self._recorder.step(f"{stage} {done}")
        self._on_progress(stage, done, total)

    def show(self, stage: str, done: int, total: int) -> None:
        """Report where a stage stands, without recording a step."""
        self._on_progress(stage, done, total)

    def steps_of(self, stage: str) -> Callable[[int, int], None]:
        """A function to call with (done, total) after each step of `stage`."""
        return partial(self.step, stage)
