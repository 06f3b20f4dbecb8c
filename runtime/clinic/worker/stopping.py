"""The end of the worker: asked for by a signal, taken between two slices or two words."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopAsked(BaseException):
    """The worker was asked to end."""


class Stop:
    """Whether a signal has asked the worker to end."""

    def __init__(self) -> None:
        """Not yet."""
        self.is_asked = False
        self._ends_at_once = False

    def check(self) -> None:
        """End here if asked to: nothing is half done.

        Raises:
            StopAsked: a signal came.
        """
        if self.is_asked:
            raise StopAsked

    def wait(self, seconds: float) -> None:
        """Sleep; a signal ends it."""
        with self.at_once():
            time.sleep(seconds)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that a signal ends wherever it is."""
        self._ends_at_once = True
        try:
            self.check()
            yield
        finally:
            self._ends_at_once = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals while the block runs; outside the main thread there are none."""
        before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.is_asked = True
        if self._ends_at_once:
            raise StopAsked
