"""A day in a clinic: studies of three senders, two with bleeds, one aborted, one sent twice, two power cuts.

    PYTHONPATH=tests python -m clinic.day --studies 40

The box is the real one, `edge-medgemma clinic` with its three processes and the demo engine. While
scans come in, and again while the engine looks, all its processes are killed and started again. The senders do what senders do: what
was refused is sent again until it is taken. At the end nothing may be lost, there twice or out of order.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from clinic.checks import Checks, wait_until
from support.clinic_peers import (
    DicomAddress,
    Orthanc,
    dcmsend,
    free_port,
    running_orthanc,
    storescu,
)
from support.clinic_scans import phantom, renamed

from edge_medgemma.runtime.clinic.arrivals.spool import Spool
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.clinic.worklist.records import Doubt, StudyRow, StudyState
from edge_medgemma.runtime.clinic.worklist.results import read_records
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.triage.urgency import Urgency

PLANTED = "PLANTED"
"""In every name, patient number and accession number of the day."""

FLAG = "intracranial_haemorrhage"
BLEED_SHARE = (0.4, 0.8)
"""Places in the day of the two studies with a bleed: long after others wait."""

FEWEST = 9

_LONGEST_S = 3600.0
_TRY_AGAIN_S = 1.0
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


@dataclass(slots=True)
class Box:
    """`edge-medgemma clinic` on a state folder."""

    state: StateFolder
    settings: Path
    address: DicomAddress
    page_port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = field(default=0)

    def start(self) -> None:
        command = [sys.executable, "-m", "edge_medgemma", "clinic", "--state", str(self.state.path)]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, "--settings", str(self.settings)], stdout=output, stderr=output
            )
        self.starts += 1

    def cut_the_power(self) -> int:
        """Kill every process at once; how many there were."""
        assert self.process is not None
        parent = psutil.Process(self.process.pid)
        processes = [parent, *parent.children(recursive=True)]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=30)
        self.process.wait()
        return len(processes)

    def stop(self) -> tuple[int, int]:
        """End it politely: its exit status, and processes that are left."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=60)
        return status, len(psutil.wait_procs(children, timeout=5)[1])

    def rows(self) -> tuple[StudyRow, ...]:
        with Worklist.open(self.state) as worklist:
            return worklist.studies()


def main() -> None:
    """Run the day and judge it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=40)
    parser.add_argument("--keep", type=Path, help="leave everything in this folder")
    options = parser.parse_args()
    if options.studies < FEWEST:
        parser.error(f"a day has at least {FEWEST} studies")
    checks = Checks()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="clinic-day-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with running_orthanc(folder / "orthanc", ae_title="ROUTER") as router:
            _run(checks, folder, router, options.studies)
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    checks.finish()


def _run(checks: Checks, folder: Path, router: Orthanc, count: int) -> None:
    day = _plan(count)
    for study in day:
        study.files = _draw(folder / "scans", study)
    checks.say(f"{len(day)} studies are drawn, {sum(len(one.files) for one in day)} images")
    box = _box(folder, router)
    router.add_modality(box.address)
    router.upload(*(one.files[0].parent for one in day if "ROUTER" in one.senders))
    box.start()
    threads = [
        threading.Thread(target=_send_all, args=(box, router, day, name), daemon=True)
        for name in ("CT1", "CT2", "ROUTER")
    ]
    try:
        for thread in threads:
            thread.start()
        third = max(2, count // 3)
        wait_until(lambda: len(_spooled(box)) >= third, _LONGEST_S, every_s=0.05)
        was_sending = sum(thread.is_alive() for thread in threads)
        cut_at_s = time.monotonic()
        killed = box.cut_the_power()
        words = f"{killed} processes, {was_sending} senders at work, {len(_spooled(box))} studies"
        checks.check("the power is cut while scans come in", was_sending > 0, words)
        box.start()
        for thread in threads:
            thread.join(_LONGEST_S)
        checks.check("every sender got rid of its studies", not any(t.is_alive() for t in threads))
        wait_until(lambda: _looked_at(box) >= third, _LONGEST_S)
        words = f"{box.cut_the_power()} processes, {_looked_at(box)} studies looked at"
        checks.check("and again while the engine looks", _looked_at(box) < count, words)
        box.start()
        is_done = wait_until(lambda: _is_done(box, day), _LONGEST_S, every_s=1)
        checks.check("every study is looked at to the end", is_done)
        _judge(checks, box, day)
        _judge_doubts(checks, box, day, cut_at_s)
        _judge_archive(checks, box, router, day)
        status, left = box.stop()
        checks.check("the box ends cleanly", (status, left) == (0, 0), (status, left))
        _judge_silence(checks, box)
    finally:
        if box.process is not None and box.process.poll() is None:
            box.cut_the_power()
        _print(box, day)


def _plan(count: int) -> list[Study]:
    """Who sends what; the bleeds stand neither first nor last."""
    bleeds = {int(share * count) for share in BLEED_SHARE}
    names = ("CT1", "CT2", "ROUTER")
    day = [
        Study(number, number in bleeds, (names[number % 3],), is_aborted=False)
        for number in range(count)
    ]
    late = [one for one in day[count // 3 :] if not one.has_bleed]
    aborted = next(one for one in late if one.senders == ("CT1",))
    aborted.is_aborted = True
    twice = next(one for one in late if one.senders == ("CT2",))
    twice.senders = ("CT2", "CT1")
    return day


def _draw(folder: Path, study: Study) -> tuple[Path, ...]:
    """A phantom under this study's UIDs."""
    place = folder / str(study.number)
    place.mkdir(parents=True)
    for number, path in enumerate(phantom(folder, has_bleed=study.has_bleed)):
        dataset = renamed(path, study.uid)
        dataset.PatientName = f"{PLANTED}^{study.number}"
        dataset.PatientID = f"{PLANTED}{study.number}"
        dataset.AccessionNumber = f"{PLANTED}{study.number}"
        dataset.StudyDate, dataset.StudyTime = "20261128", "080000"
        dataset.save_as(place / f"{number:03}.dcm")
    return tuple(sorted(place.iterdir()))


def _box(folder: Path, router: Orthanc) -> Box:
    port, page_port = free_port(), free_port()
    settings = folder / "clinic.toml"
    settings.write_text(
        f"site.demonstration = true\npage.port = {page_port}\n[node]\nport = {port}\n"
        "reserve_gb = 0.1\nreleased_quiet_s = 1\nquiet_s = 10\ngive_up_s = 30\n"
        '[[peers]]\nname = "archive"\nae_title = "ROUTER"\nhost = "127.0.0.1"\n'
        f'port = {router.address.port}\nquery = true\nresults = ["sr"]\n'
    )
    state = StateFolder(folder / "state")
    state.create()
    address = DicomAddress("EDGEMEDGEMMA", port)
    return Box(state, settings, address, page_port, folder / "clinic.log")


def _send_all(box: Box, router: Orthanc, day: list[Study], sender: str) -> None:
    """What one sender has to send, one study after the other, each until it is taken."""
    for study in day:
        if sender not in study.senders:
            continue
        if study.is_aborted:
            _abort(box, study, sender)
        elif sender == "ROUTER":
            wait_until(lambda study=study: _routed(router, study), _LONGEST_S, _TRY_AGAIN_S)
        else:
            send = storescu if sender == "CT1" else dcmsend
            wait_until(
                lambda study=study, send=send: (
                    send(box.address, *study.files, calling=sender).returncode == 0
                ),
                _LONGEST_S,
                _TRY_AGAIN_S,
            )
        if not study.is_aborted:
            study.sent = len(study.files)
        study.taken_at_s = time.monotonic()


def _routed(router: Orthanc, study: Study) -> bool:
    try:
        router.send_study(study.uid)
    except OSError:  # urllib's errors are: the node refused, or was away
        return False
    return True


def _abort(box: Box, study: Study, sender: str) -> None:
    """Half of a study, then an A-ABORT, and never again."""
    half = study.files[: len(study.files) // 2]
    key = box.state.study_key(study.uid)
    wait_until(
        lambda: (
            storescu(box.address, *half, calling=sender, options=["--abort"]) is not None
            and len(Spool(box.state).files(key)) == len(half)
        ),
        _LONGEST_S,
        _TRY_AGAIN_S,
    )
    study.sent = len(half)


def _spooled(box: Box) -> tuple[str, ...]:
    return Spool(box.state).study_keys()


def _looked_at(box: Box) -> int:
    return sum(row.result_number is not None for row in box.rows())


def _is_done(box: Box, day: list[Study]) -> bool:
    """Whether all is looked at and, but for the aborted one, the archive has confirmed it."""
    rows = {row.study_uid: row for row in box.rows()}
    return all(
        (row := rows.get(study.uid)) is not None
        and (
            row.state is StudyState.FAILED
            or row.state is StudyState.DELIVERED
            or (study.is_aborted and row.is_final and row.state is StudyState.INCOMPLETE)
        )
        for study in day
    )


def _judge(checks: Checks, box: Box, day: list[Study]) -> None:
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


def _judge_doubts(checks: Checks, box: Box, day: list[Study], cut_at_s: float) -> None:
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


def _judge_archive(checks: Checks, box: Box, router: Orthanc, day: list[Study]) -> None:
    """Each result is in the archive once, in the study of the images."""

    def reports(study: Study) -> int:
        return len(router.find("Instance", StudyInstanceUID=study.uid, Modality="SR"))

    wait_until(lambda: all(map(reports, day)), _DELIVERY_S)
    wrong = [(study.number, reports(study)) for study in day if reports(study) != 1]
    checks.check("the archive has one report of each study", not wrong, wrong or len(day))


def _judge_silence(checks: Checks, box: Box) -> None:
    """No planted text anywhere but in the images, the objects to be sent and what is set aside."""
    state = box.state
    files = [box.log, state.database, state.audit_file, *state.arrivals.iterdir()]
    files += [path for path in state.path.iterdir() if path.is_file()]
    told = {path.name for path in files if PLANTED.encode() in path.read_bytes()}
    named = [path for path in state.path.rglob("*") if PLANTED in path.name]
    checks.check("no name in log, database, audit and file names", not told and not named, told)
    is_calm = b"Traceback" not in box.log.read_bytes()
    checks.check("no traceback in the log", is_calm)


def _print(box: Box, day: list[Study]) -> None:
    """The worklist as it stands."""
    numbers = {study.uid: study.number for study in day}
    print(f"{'study':>5}  {'urgency':15}  {'state':10}  {'images':>6}  senders, doubts")
    for row in box.rows():
        words = ", ".join([*row.senders, *row.doubts, *row.flagged])
        print(
            f"{numbers.get(row.study_uid, -1):5}  {row.urgency or '-':15}  {row.state:10}  "
            f"{row.instances:6}  {words}"
        )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
