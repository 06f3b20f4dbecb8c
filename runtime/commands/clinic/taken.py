"""What commands say of scans that they took into the worklist. Nothing of it says whose they are."""

import time
from collections.abc import Iterable, Mapping

import click

from edge_medgemma.runtime.clinic.arrivals.intake import TakenStudy
from edge_medgemma.runtime.clinic.heartbeat import seconds_since_beat
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.records import StudyRow, StudyState
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.reporting.labels import count, urgency_words

SHOWN_KEY_LETTERS = 8
"""Of a study key, here and in logs."""

_WORKER = "worker"
_SILENT_S = 120.0
"""A worker that has not beaten for so long does not run."""

_POLL_S = 0.5
_NOT_LOOKED = (StudyState.ARRIVING, StudyState.WAITING, StudyState.RUNNING)


def print_taken(studies: Mapping[str, TakenStudy]) -> None:
    """A line for each study."""
    for key, study in studies.items():
        parts = [count(study.images, "image")]
        if study.repeated:
            parts.append(f"{study.repeated} of them there already")
        if study.conflicting:
            parts.append(f"{study.conflicting} unlike one of the same number: both are kept")
        if study.aside:
            parts.append(f"{count(study.aside, 'object')} without an image kept aside")
        click.echo(f"study {key[:SHOWN_KEY_LETTERS]}  {', '.join(parts)}")


def wait_for_looks(state: StateFolder, keys: Iterable[str]) -> None:
    """Print the urgency of each study once the engine has seen all of it.

    Raises:
        ResourceError: no engine runs on the state folder, or it ends meanwhile.
    """
    left = list(keys)
    with Worklist.open(state) as worklist:
        while left:
            for key in tuple(left):
                row = worklist.study(key)
                if row is None or _is_looked_at(row):
                    left.remove(key)
                    click.echo(f"study {key[:SHOWN_KEY_LETTERS]}  {_urgency(row)}")
            if left:
                _check_worker(state)
                time.sleep(_POLL_S)


def _is_looked_at(row: StudyRow) -> bool:
    return row.state not in _NOT_LOOKED and (
        row.failure is not None or row.instances == 0 or row.result_revision == row.revision
    )


def _urgency(row: StudyRow | None) -> str:
    if row is None:
        return "no longer in the worklist"
    if row.failure is not None or row.urgency is None:
        return "could not be looked at; a person must"
    words = urgency_words(row.urgency, row.flagged)
    if row.flagged:
        words += f": {', '.join(row.flagged)}"
    return f"{words}  (may be incomplete)" if row.doubts else words


def _check_worker(state: StateFolder) -> None:
    seconds = seconds_since_beat(state, _WORKER)
    if seconds is None or seconds > _SILENT_S:
        raise ResourceError(
            "the scans are in the worklist, and no engine looks at them: start 'edge-medgemma "
            "clinic', or see 'edge-medgemma clinic check'"
        )
