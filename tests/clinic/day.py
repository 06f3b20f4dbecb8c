"""A day in a clinic: studies of three senders, two with bleeds, one aborted, one sent twice.

    PYTHONPATH=tests python -m clinic.day --studies 40

The box is the real one, `edge-medgemma clinic` with its three processes and the demo engine. While
scans come in, and again while the engine looks, all its processes are killed and started again. The
senders do what senders do: what was refused is sent again until it is taken. At the end nothing may be
lost, there twice or out of order. Ten minutes.
"""

import argparse
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

from clinic.checks import Checks, wait_until
from clinic.judgement import (
    PLANTED,
    Study,
    judge_archive,
    judge_doubts,
    judge_silence,
    judge_worklist,
    print_worklist,
)
from clinic.whole_box import Box
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
from edge_medgemma.runtime.clinic.worklist.records import StudyState

BLEED_SHARE = (0.4, 0.8)
"""Places in the day of the two studies with a bleed: long after others wait."""

FEWEST = 9

_LONGEST_S = 3600.0
_TRY_AGAIN_S = 1.0


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
        judge_worklist(checks, box, day)
        judge_doubts(checks, box, day, cut_at_s)
        judge_archive(checks, box, router, day)
        status, left = box.stop()
        checks.check("the box ends cleanly", (status, left) == (0, 0), (status, left))
        judge_silence(checks, box)
    finally:
        if box.process is not None and box.process.poll() is None:
            box.cut_the_power()
        print_worklist(box, day)


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
    return Box(state, settings, address, folder / "clinic.log")


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


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
