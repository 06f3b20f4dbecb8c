"""What must be true of the worklist at the end of a day."""

from dataclasses import dataclass
from pathlib import Path

from clinic.checks import Checks, wait_until
from clinic.whole_box import Box
from support.clinic_peers import Orthanc

from edge_medgemma.runtime.clinic.arrivals.spool import Spool
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.clinic.worklist.records import Doubt
from edge_medgemma.runtime.clinic.worklist.results import read_records
from edge_medgemma.runtime.triage.urgency import Urgency

PLANTED = "PLANTED"
"""In every name, patient number and accession number of the day."""

FLAG = "intracranial_haemorrhage"

_UNHEARD_S = 2.0
"""The node writes down twice a second which senders have ended."""

_DELIVERY_S = 120.0
"""What may be incomplete leaves when it is no longer waited for."""


@dataclass(slots=True)
class Study:
    """One study of the day."""

    number: int
    has_bleed: bool
    senders: tuple[str, ...]
    is_aborted: bool
    files: tuple[Path, ...] = ()
    sent: int = 0
    """Images whose receipt was confirmed."""
    taken_at_s: float = 0.0
    """When the last was; monotonic."""

    @property
    def uid(self) -> str:
        return f"1.2.3.4.{self.number}"


def judge_worklist(checks: Checks, box: Box, day: list[Study]) -> None:
    """The worklist at the end."""
    rows = box.rows()
    by_uid = {row.study_uid: row for row in rows}
    checks.check("no study is lost or there twice", sorted(by_uid) == sorted(s.uid for s in day)
                 and len(rows) == len(day), len(rows))  # fmt: skip
    spool = Spool(box.state)
    lost = [
        (study.number, study.sent, len(spool.files(box.state.study_key(study.uid))))
        for study in day
        if not len(spool.files(box.state.study_key(study.uid)))
        == study.sent
        == by_uid[study.uid].instances
    ]
    checks.check("every image that was confirmed is there, once", not lost, lost or "")
    bleeds = {study.uid for study in day if study.has_bleed}
    first = {row.study_uid for row in rows[: len(bleeds)]}
    checks.check("the bleeds stand first", first == bleeds)
    flagged = {row.study_uid for row in rows if FLAG in row.flagged}
    checks.check("the bleeds are flagged, nothing else is", flagged == bleeds, len(flagged))
    order = [
        ((row.urgency or Urgency.NOT_ASSESSABLE).rank, not row.doubts, row.place) for row in rows
    ]
    checks.check("urgency, doubt, arrival: the list is in order", order == sorted(order))
    twice = []
    for row in rows:
        finals = [one.revision for one in read_records(box.state, row.key) if one.is_final]
        if len(finals) != len(set(finals)):
            twice.append(row.key[:8])
    checks.check("no result is there twice", not twice, twice or "")
    checks.check("the audit is whole", audit.verify(box.state) > 0)


def judge_doubts(checks: Checks, box: Box, day: list[Study], cut_at_s: float) -> None:
    """Only the aborted study, and those of whose end the box had not heard when the power was cut."""
    by_uid = {row.study_uid: row.doubts for row in box.rows()}
    doubted = {study.number for study in day if by_uid[study.uid]}
    aborted = {study.number for study in day if study.is_aborted}
    unheard = {
        study.number for study in day if -_UNHEARD_S < study.taken_at_s - cut_at_s < _UNHEARD_S
    }
    kinds = {doubt for doubts in by_uid.values() for doubt in doubts}
    is_said = aborted <= doubted <= aborted | unheard and kinds == {Doubt.ABORTED}
    words = f"{sorted(doubted)}, unheard of at the cut {sorted(unheard)}"
    checks.check("the aborted one may be incomplete, no other", is_said, words)


def judge_archive(checks: Checks, box: Box, router: Orthanc, day: list[Study]) -> None:
    """Each result is in the archive once, in the study of the images."""

    def reports(study: Study) -> int:
        return len(router.find("Instance", StudyInstanceUID=study.uid, Modality="SR"))

    wait_until(lambda: all(map(reports, day)), _DELIVERY_S)
    wrong = [(study.number, reports(study)) for study in day if reports(study) != 1]
    checks.check("the archive has one report of each study", not wrong, wrong or len(day))


def judge_silence(checks: Checks, box: Box) -> None:
    """No planted text anywhere but in the images, the objects to be sent and what is set aside."""
    state = box.state
    files = [box.log, state.database, state.audit_file, *state.arrivals.iterdir()]
    files += [path for path in state.path.iterdir() if path.is_file()]
    told = {path.name for path in files if PLANTED.encode() in path.read_bytes()}
    named = [path for path in state.path.rglob("*") if PLANTED in path.name]
    checks.check("no name in log, database, audit and file names", not told and not named, told)
    is_calm = b"Traceback" not in box.log.read_bytes()
    checks.check("no traceback in the log", is_calm)


def print_worklist(box: Box, day: list[Study]) -> None:
    """The worklist as it stands."""
    numbers = {study.uid: study.number for study in day}
    print(f"{'study':>5}  {'urgency':15}  {'state':10}  {'images':>6}  senders, doubts")
    for row in box.rows():
        words = ", ".join([*row.senders, *row.doubts, *row.flagged])
        print(
            f"{numbers.get(row.study_uid, -1):5}  {row.urgency or '-':15}  {row.state:10}  "
            f"{row.instances:6}  {words}"
        )
