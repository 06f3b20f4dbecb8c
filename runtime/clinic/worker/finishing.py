"""What follows the last pass: a report whose doubts have changed, and the objects to be delivered."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from edge_medgemma.runtime.clinic.delivery.source import SeveralPeopleError
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worker.publishing import publish, read_latest
from edge_medgemma.runtime.clinic.worklist.records import StudyRow, StudyState
from edge_medgemma.runtime.clinic.worklist.store import Worklist

LOG = logging.getLogger(__name__)

Build = Callable[[StateFolder, ClinicSettings, str, int], None]
"""Makes the objects to be delivered of a result."""

RETRY_S = 60.0


class Finisher:
    """Restates and hands over what the engine is done with."""

    def __init__(
        self, state: StateFolder, settings: ClinicSettings, worklist: Worklist, build: Build
    ) -> None:
        """Do nothing yet."""
        self._state = state
        self._settings = settings
        self._worklist = worklist
        self._build = build
        self._built: set[tuple[str, int]] = set()
        self._try_again_s: dict[tuple[str, int], float] = {}
        self._seen_s: dict[tuple[str, int], float] = {}
        self.problem = ""
        """Why a result is not handed over, in plain words."""

    def finish_one(self) -> bool:
        """Do what one study needs; False where none needs anything."""
        return any(
            self._restate(row) or self._hand_over(row)
            for row in self._worklist.studies()
            if row.is_final and row.result_revision == row.revision
        )

    def _restate(self, row: StudyRow) -> bool:
        """A new result of the same look, where other doubts hold than the report says."""
        if row.state not in (StudyState.DONE, StudyState.INCOMPLETE, StudyState.DELIVERED):
            return False
        if set(self._worklist.result_doubts(row.key)) == set(row.doubts):
            return False
        report = read_latest(self._state, row.key)
        if report is None:
            return False
        publish(
            self._state, self._worklist, row, report,
            revision=row.revision, instances=row.instances, is_final=True,
        )  # fmt: skip
        return True

    def _hand_over(self, row: StudyRow) -> bool:
        """Make the objects of a result that is complete, or that no more is waited for."""
        number = row.result_number or 0
        result = (row.key, number)
        is_ready = row.state is StudyState.DONE or (
            row.state is StudyState.INCOMPLETE and self._has_given_up(row)
        )
        if not is_ready or result in self._built:
            return False
        if time.monotonic() < self._try_again_s.get(result, 0.0):
            return False
        try:
            self._build(self._state, self._settings, row.key, number)  # nothing, where it is whole
        except Exception as error:
            LOG.warning(
                "study %s: nothing to send was made (%s)", row.key[:8], type(error).__name__
            )
            LOG.debug("the objects could not be made", exc_info=True)
            self._try_again_s[result] = time.monotonic() + RETRY_S
            self.problem = _problem(row, error)
            return False
        self._built.add(result)
        self.problem = ""
        return True

    def _has_given_up(self, row: StudyRow) -> bool:
        """Whether nothing came for so long, by the device's clock or by that of this process."""
        seen_s = self._seen_s.setdefault((row.key, row.revision), time.monotonic())
        waited_s = time.monotonic() - seen_s
        last = datetime.fromisoformat(row.last_arrival_at)
        waited_s = max(waited_s, (datetime.now(UTC) - last).total_seconds())
        return waited_s >= self._settings.node.give_up_s


def _problem(row: StudyRow, error: Exception) -> str:
    """What a person must know of a result that does not leave."""
    if isinstance(error, SeveralPeopleError):
        return (
            f"The result of study {row.key[:8]} is not sent: images of several people carry its study "
            "number. Find out whose scan it is."
        )
    return (
        f"The result of study {row.key[:8]} could not be made ready to be sent. It is on the "
        "page, and is tried again every minute."
    )
