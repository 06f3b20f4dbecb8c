"""`edge-medgemma clinic worklist`: the list in a terminal or for a program."""

from datetime import datetime

import click

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.records import StudyRow, StudyState
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.commands.clinic.options import state_option
from edge_medgemma.runtime.documents import dump_json
from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.triage.urgency import NO_FLAG_TEXT, Urgency

_STATES = {
    StudyState.ARRIVING: "is arriving",
    StudyState.WAITING: "waits for the engine",
    StudyState.RUNNING: "is looked at",
    StudyState.INCOMPLETE: "may be incomplete",
    StudyState.DONE: "looked at",
    StudyState.DELIVERED: "delivered",
    StudyState.FAILED: "could not be looked at",
    StudyState.SUPERSEDED: "part of another study",
}

_URGENCIES = {
    None: "not looked at yet",
    Urgency.CRITICAL: "CRITICAL",
    Urgency.URGENT: "URGENT",
    Urgency.NOT_ASSESSABLE: "not assessable",
    Urgency.ROUTINE: "routine",
}


@click.command(
    short_help="Print the list of studies, the most urgent first.",
    epilog="Example: edge-medgemma clinic worklist --json",
)
@state_option
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def command(state: StateFolder, as_json: bool) -> None:
    """Print the list of studies, the most urgent first. It holds no name of a patient."""
    if not state.database.exists():
        raise ResourceError(
            f"there is no worklist in '{state.path}'; start the box with 'edge-medgemma clinic', or name "
            "its folder with --state"
        )
    with Worklist.open(state) as worklist:
        rows = worklist.studies()
    if as_json:
        click.echo(dump_json(rows), nl=False)
    else:
        _print(rows)


def _print(rows: tuple[StudyRow, ...]) -> None:
    from rich.table import Table

    from edge_medgemma.runtime.commands.sanitize import printable
    from edge_medgemma.runtime.commands.tables import print_table

    table = Table(
        "study", "urgency", "flagged or doubtful", "state", "images", "came", "acknowledged"
    )
    for row in rows:
        table.add_row(
            row.key[:8],
            _URGENCIES[row.urgency],
            printable("; ".join(_reasons(row))),
            _STATES[row.state] + ("" if row.is_final or row.result_number is None else ", once"),
            _images(row),
            _local(row.first_arrival_at),
            _local(row.acknowledged_at) if row.acknowledged_at else "",
        )
    print_table(table)


def _reasons(row: StudyRow) -> list[str]:
    words = [*row.flagged, *row.limitations, *row.doubts, *([row.failure] if row.failure else [])]
    if not row.flagged and row.urgency is Urgency.ROUTINE:
        words.insert(0, NO_FLAG_TEXT)
    return [str(word).replace("_", " ") for word in dict.fromkeys(words)]


def _images(row: StudyRow) -> str:
    of = f" of {row.expected_instances}" if row.expected_instances is not None else ""
    return f"{row.instances}{of}"


def _local(time: str) -> str:
    """A UTC time of the list, in the time zone of this machine; as it is where it is no time."""
    try:
        return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return time
