"""The box's processes killed at random while four scanners send; then everything is counted.

    PYTHONPATH=tests python -m clinic.kills --kills 50

Real parts: `edge-medgemma clinic` with the demo engine, pynetdicom's senders, an Orthanc that is sent
all results and confirms them. Node, worker or page is killed by SIGKILL, or all at once as by a power
cut. Prints what it counts, and exits with 1 if an acknowledged image is lost, or a study or a result
is there twice.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from clinic.whole_box import Box
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage
from support.clinic_peers import DicomAddress, Orthanc, free_port, running_orthanc

from edge_medgemma.calibration.phantoms.dicom import write_dicom_series
from edge_medgemma.calibration.phantoms.drawing import draw_phantom
from edge_medgemma.runtime.clinic.arrivals.spool import Spool
from edge_medgemma.runtime.clinic.delivery.manifest import entries, read_manifest
from edge_medgemma.runtime.clinic.settings import ResultKind
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.clinic.worklist.records import FailureReason, StudyState
from edge_medgemma.runtime.clinic.worklist.results import read_records
from edge_medgemma.runtime.triage.urgency import Urgency

PROCESSES = ("node", "worker", "page")
SENDERS = 4
ENDED = (StudyState.DELIVERED, StudyState.FAILED)
"""A study on which two workers ended is left to a person: it may be what ended them."""

PAUSE_S = 0.05
"""Between two images: a scanner, not a benchmark."""


@dataclass(slots=True)
class Sender:
    """A scanner that sends until every image was acknowledged."""

    title: str
    studies: list[list[FileDataset]]
    to: DicomAddress
    acknowledged: set[tuple[str, str, str]] = field(default_factory=set)
    """Study, series and SOP instance UID."""

    def run(self) -> None:
        """Send all studies, one association each, again after every break."""
        for study in self.studies:
            left = list(study)
            while left:
                left = self._send(left)
                time.sleep(random.uniform(0.2, 1.5))

    def _send(self, images: list[FileDataset]) -> list[FileDataset]:
        """Images that were not acknowledged."""
        entity = AE(self.title)
        entity.add_requested_context(CTImageStorage)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
        association = entity.associate(self.to.host, self.to.port, ae_title=self.to.ae_title)
        left = []
        for image in images:
            status = None
            if association.is_established:
                try:
                    status = association.send_c_store(image)
                except (RuntimeError, ValueError, OSError):
                    status = None
            if status and status.Status == 0x0000:
                self.acknowledged.add(
                    (image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID)
                )
            else:
                left.append(image)
            time.sleep(PAUSE_S if association.is_established else 0)
        if association.is_established:
            association.release()
        return left


def start_box(folder: Path, archive: Orthanc) -> Box:
    """A box that sends all its results to the archive."""
    address = DicomAddress("EDGEMEDGEMMA", free_port())
    settings = folder / "clinic.toml"
    folder.mkdir()
    settings.write_text(
        "[site]\ndemonstration = true\n"
        f"[node]\nport = {address.port}\nreserve_gb = 0\nreleased_quiet_s = 2\nquiet_s = 10\n"
        f"give_up_s = 30\n[page]\nport = {free_port()}\n"
        '[[peers]]\nname = "archive"\nae_title = "ORTHANC"\nhost = "127.0.0.1"\n'
        f'port = {archive.address.port}\nresults = ["sr", "kos", "sc", "pdf"]\n'
    )
    box = Box(StateFolder(folder / "state"), settings, address, folder / "box.log")
    box.start()
    while not box.state.database.exists():  # it is made by the first of its processes
        time.sleep(0.2)
    return box


def draw(folder: Path, count: int) -> list[tuple[list[FileDataset], bool]]:
    """Studies of phantoms, and whether each has a bleed."""
    found = []
    for number in range(count):
        has_bleed = number % 3 == 0
        scan = folder / str(number)
        findings = frozenset({"intracranial_haemorrhage"}) if has_bleed else frozenset()
        write_dicom_series(draw_phantom(3_100_000 + number, findings=findings), scan)
        found.append(([dcmread(path) for path in sorted(scan.rglob("*.dcm"))], has_bleed))
    return found


def kill_at_random(box: Box, kills: int, seed: int) -> Counter[str]:
    """Kill so often, and how often what was."""
    chance, done = random.Random(seed), Counter[str]()
    while done.total() < kills:
        time.sleep(chance.uniform(0.3, 4.0))
        if chance.random() < 0.2:
            box.cut_the_power()
            box.start()
            done["all"] += 1
        else:
            name = chance.choice(PROCESSES)
            done[name] += box.kill(name)
        if done.total() % 10 == 0:
            print(f"  {done.total()} kills", flush=True)
    return done


def settle(box: Box, studies: int, seconds: float) -> None:
    """Wait until all is delivered."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        rows = box.rows()
        if len(rows) >= studies and all(row.state in ENDED for row in rows):
            return
        time.sleep(1)
    print("not all was delivered in time:", Counter(row.state for row in box.rows()))


def problems(
    box: Box, senders: list[Sender], archive: Orthanc, bleeds: dict[str, bool]
) -> list[str]:
    """What is wrong at the end; empty where nothing is."""
    found, spool, state = [], Spool(box.state), box.state
    acknowledged = set.union(*(sender.acknowledged for sender in senders))
    for study, series, sop in sorted(acknowledged):
        if spool.path_of(state.study_key(study), series, sop) is None:
            found.append(f"lost: an acknowledged image of study {study}")
    rows = {row.study_uid: row for row in box.rows()}
    if len(rows) != len(box.rows()) or set(rows) != set(bleeds):
        found.append(f"{len(box.rows())} rows for {len(bleeds)} studies")
    looked = Counter(
        (one.study_key, one.detail.split()[0])
        for one in audit.read(state)
        if one.event == "looked_at"
    )
    found += [f"result {key} was published {n} times" for key, n in looked.items() if n > 1]
    manifests = [read_manifest(one.folder) for one in entries(state)]
    ours = {
        one.sop_instance_uid for m in manifests for one in m.objects if one.kind is ResultKind.SR
    }
    for uid, row in rows.items():
        last = [r for r in read_records(state, row.key) if r.is_final]
        twice = [n for n in Counter((r.revision, r.doubts) for r in last).values() if n > 1]
        if twice:
            found.append(f"study {uid} has one look's result twice")
        if bleeds[uid] and row.urgency is not Urgency.CRITICAL:
            found.append(f"study {uid} has a bleed and is {row.urgency}")
        if row.state is StudyState.FAILED:
            if row.failure is not FailureReason.CRASHED or row.urgency is Urgency.ROUTINE:
                found.append(f"study {uid} failed by {row.failure} and is {row.urgency}")
            continue
        if row.state is not StudyState.DELIVERED:
            found.append(f"study {uid} is {row.state}")
        reports = archive.find("Series", StudyInstanceUID=uid, Modality="SR")
        held = [
            one["MainDicomTags"]["SOPInstanceUID"]
            for series in reports
            for one in archive.call("GET", f"/series/{series['ID']}/instances")
        ]
        if not held or len(held) != len(set(held)) or not set(held) <= ours:
            found.append(f"the archive holds {len(held)} reports of study {uid}, some not ours")
        if len(held) > len(last):
            found.append(f"the archive holds {len(held)} reports of {len(last)} results")
    print(
        f"images acknowledged {len(acknowledged)}; studies {len(rows)}, of which "
        f"{sum(row.state is StudyState.FAILED for row in rows.values())} left to a person; "
        f"results {sum(looked.values())}; reports in the archive {len(ours)}; "
        f"audit lines {audit.verify(state)}"
    )
    return found


def main() -> int:
    """Run it all; 1 where something is lost or twice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--studies", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--settle", type=float, default=600, help="seconds, after the last kill")
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory(prefix="clinic-kills-") as name:
        folder = Path(name)
        drawn = draw(folder / "drawn", options.studies)
        bleeds = {str(images[0].StudyInstanceUID): bleed for images, bleed in drawn}
        with running_orthanc(folder / "archive") as archive:
            box = start_box(folder / "box", archive)
            archive.add_modality(box.address)
            senders = [
                Sender(f"CT{n}", [images for images, _ in drawn[n::SENDERS]], box.address)
                for n in range(SENDERS)
            ]
            threads = [threading.Thread(target=sender.run) for sender in senders]
            for thread in threads:
                thread.start()
            print("killed:", dict(kill_at_random(box, options.kills, options.seed)))
            for thread in threads:
                thread.join()
            settle(box, options.studies, options.settle)
            found = problems(box, senders, archive, bleeds)
            status, left = box.stop()
            print(f"stopped with status {status}, {left} processes left")
            if found:
                print("\n".join(found))
                (Path(tempfile.gettempdir()) / "clinic-kills.log").write_text(box.log.read_text())
            print("nothing lost, nothing twice" if not found else f"{len(found)} problems")
            return bool(found)


if __name__ == "__main__":
    sys.exit(main())
