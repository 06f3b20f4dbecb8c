"""The clinic's worker in a test: run in this process until a condition holds."""

import time
from collections.abc import Callable

from edge_medgemma.runtime.clinic.delivery.deliverables import build_deliverables
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worker.stopping import Stop, StopAsked
from edge_medgemma.runtime.clinic.worker.worker import run_worker

LONGEST_S = 600.0


class StopWhen(Stop):
    """Asks for the end when a condition holds, and fails the test when it never does."""

    def __init__(self, condition: Callable[[], bool]) -> None:
        super().__init__()
        self._condition = condition
        self._end_s = time.monotonic() + LONGEST_S

    def check(self) -> None:
        """As of `Stop`."""
        assert time.monotonic() < self._end_s, "the worker did not come so far"
        if self._condition():
            raise StopAsked


class Builds:
    """Makes the objects to be delivered, and keeps a list of the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def __call__(
        self, state: StateFolder, settings: ClinicSettings, study_key: str, number: int
    ) -> None:
        self.calls.append((study_key, number))
        build_deliverables(state, settings, study_key, number)


def work_until(
    state: StateFolder, settings: ClinicSettings, condition: Callable[[], bool]
) -> list[tuple[str, int]]:
    """Run the worker; the results that were handed over."""
    builds = Builds()
    run_worker(state, settings, StopWhen(condition), builds)
    return builds.calls
