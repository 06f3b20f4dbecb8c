"""Processes of the box killed at random while studies come and are looked at; then everything is counted.

    python tests/clinic/power_cut.py --kills 50

Three processes share a state folder: one receives images into the spool and notes them, one is
`edge-medgemma clinic worker`, one reads the list and acknowledges. One of them, or all at once as by a
power cut, is killed by SIGKILL after a random time and started again. At the end, with no more kills,
every image whose receipt was confirmed must be there, every study looked at to the end, and no result
published twice.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.clinic_scans import phantom, renamed
from support.clinic_worklist import acknowledgement

from edge_medgemma.runtime.clinic.arrivals.spool import Spool
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit, lease
from edge_medgemma.runtime.clinic.worklist.records import StudyRow, StudyState
from edge_medgemma.runtime.clinic.worklist.results import read_records, result_numbers
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.triage.urgency import Urgency

SETTINGS = "[site]\ndemonstration = true\n[node]\nreserve_gb = 0\n"
IMAGES_AT_ONCE = 8


def receive(state: StateFolder, source: Path, confirmed: Path) -> None:
    """Take every image of `source` into the spool, in order; what is confirmed is written down last.

    Begins where the process before was killed: a sender that got no answer sends again.
    """
    spool = Spool(state)
    known = set(confirmed.read_text().split("\n")) if confirmed.exists() else set()
    with Worklist.open(state) as worklist, confirmed.open("a") as file:
        spool.sweep()
        worklist.reconcile()
        for key in {row.key for row in worklist.studies()} & set(spool.study_keys()):
            worklist.recount(key)
            worklist.set_waiting(key)
        for study in sorted(source.iterdir()):
            images = [p for p in sorted(study.iterdir()) if f"{study.name}/{p.name}" not in known]
            for first in range(0, len(images), IMAGES_AT_ONCE):
                batch = images[first : first + IMAGES_AT_ONCE]
                key, uid, new = "", "", 0
                for path in batch:
                    with spool.receive() as temporary:
                        temporary.write_bytes(path.read_bytes())
                        arrival = spool.accept(temporary, study.name[:2].upper())
                    key, uid, new = arrival.study_key, arrival.study_uid, new + arrival.is_new
                    file.write(f"{study.name}/{path.name}\n")
                    file.flush()
                worklist.note_arrivals(key, uid, study.name[:2].upper(), new)
                time.sleep(0.05)
            if images:
                worklist.set_waiting(key)
            time.sleep(0.3)


def read_list(state: StateFolder) -> None:
    """Read the list over and over, and acknowledge what is critical."""
    with Worklist.open(state) as worklist:
        while True:
            for row in worklist.studies():
                if row.urgency is Urgency.CRITICAL and row.acknowledged_at is None:
                    number = row.result_number or 0
                    worklist.acknowledge(acknowledgement(number, row.key))
            time.sleep(0.05)


@dataclass(slots=True)
class Box:
    """The processes over one state folder."""

    folder: Path
    boot: int = 0
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "processes.log"
        (self.folder / "clinic.toml").write_text(SETTINGS)

    @property
    def state(self) -> StateFolder:
        """Its state folder."""
        return StateFolder(self.folder / "state")

    def start(self) -> None:
        """Start what does not run."""
        for name in ("receive", "worker", "read"):
            process = self.running.get(name)
            if process is None or (process.poll() is not None and process.returncode != 0):
                with self.log.open("ab") as log:
                    self.running[name] = subprocess.Popen(
                        [sys.executable, __file__, "--as", name, "--boot", str(self.boot),
                         "--folder", str(self.folder)],
                        stdout=log, stderr=log,
                    )  # fmt: skip

    def kill(self, *names: str) -> None:
        """End processes as a power cut does."""
        for name in names:
            self.running[name].send_signal(signal.SIGKILL)
        for name in names:
            self.running[name].wait()

    def rows(self) -> tuple[StudyRow, ...]:
        """The list."""
        with Worklist.open(self.state) as worklist:
            return worklist.studies()


def run_as(name: str, folder: Path, boot: int) -> None:
    """Be one of the processes, on a machine that was started `boot` times before."""
    state = StateFolder(folder / "state")
    real = lease.boot_id()
    lease.boot_id = lambda: f"{real}-{boot}"
    if name == "receive":
        receive(state, folder / "source", folder / "confirmed")
    elif name == "read":
        read_list(state)
    else:
        from edge_medgemma.runtime.cli import cli

        arguments = ["clinic", "worker", "--state", str(state.path)]
        cli.main([*arguments, "--settings", str(folder / "clinic.toml")], standalone_mode=False)


def draw_studies(folder: Path, studies: int) -> set[str]:
    """Write the studies that are sent, each third with a bleed; UIDs of those."""
    with_bleed = set()
    for number in range(studies):
        has_bleed = number % 3 == 1
        uid = f"1.2.826.0.1.3680043.9.{number + 1}"
        target = folder / "source" / f"{number:03d}"
        target.mkdir(parents=True)
        for path in phantom(folder / "drawn", has_bleed=has_bleed):
            renamed(path, uid).save_as(target / path.name)
        with_bleed |= {uid} if has_bleed else set()
    return with_bleed


def cut_at_random(box: Box, kills: int, seed: int) -> Counter[str]:
    """Kill and start again; how often what was killed."""
    chance, counted = random.Random(seed), Counter[str]()
    while counted.total() < kills:
        box.start()
        time.sleep(chance.uniform(0.2, 5.0))
        what = chance.choice(["worker", "worker", "receive", "read", "all"])
        if what == "all":
            box.kill(*box.running)
            box.running.clear()
            box.boot += 1
        elif box.running[what].poll() is None:
            box.kill(what)
        else:
            continue
        counted[what] += 1
    return counted


def settle(box: Box, longest_s: float) -> int:
    """Let everything end; how many studies a person had to ask for once more."""
    end, asked = time.monotonic() + longest_s, 0
    ended = (StudyState.DONE, StudyState.DELIVERED)
    while time.monotonic() < end:
        box.start()
        time.sleep(0.5)
        rows = box.rows()
        is_received = box.running["receive"].poll() == 0
        for row in rows:
            if row.state is StudyState.FAILED:
                asked += 1
                with Worklist.open(box.state) as worklist:
                    worklist.set_waiting(row.key)
        if is_received and rows and all(row.state in ended for row in rows):
            break
    time.sleep(1.0)  # the reader acknowledges the last
    box.running["worker"].send_signal(signal.SIGTERM)
    assert box.running["worker"].wait(30) == 0, "the worker did not end cleanly"
    box.kill("read")
    return asked


def check(box: Box, with_bleed: set[str], studies: int) -> None:
    """Everything that must hold at the end."""
    state, rows = box.state, box.rows()
    sent = Counter(Path(line).parent.name for line in _lines(box.folder / "confirmed"))
    assert len(rows) == studies, f"{len(rows)} studies of {studies}"
    content = {_digest(p) for p in state.spool.rglob("*.dcm")}
    lost = [
        line for line in _lines(box.folder / "confirmed")
        if _digest(box.folder / "source" / line) not in content
    ]  # fmt: skip
    assert not lost, f"confirmed images are lost: {lost[:3]}"
    looks = Counter(
        (one.study_key, one.detail) for one in audit.read(state) if one.event == "looked_at"
    )
    for row in rows:
        files = len(list((state.spool / row.key).iterdir()))
        assert row.instances == files, f"{row.instances} images in the list, {files} in the spool"
        assert row.state is StudyState.DONE, row.state
        assert (row.urgency is Urgency.CRITICAL) == (row.study_uid in with_bleed), row.urgency
        assert row.urgency is not Urgency.CRITICAL or row.acknowledged_at, "not acknowledged"
        numbers = result_numbers(state, row.key)
        assert numbers == tuple(range(1, len(numbers) + 1)) and numbers[-1] == row.result_number
        finals = Counter(one.revision for one in read_records(state, row.key) if one.is_final)
        assert all(times == 1 for times in finals.values()), "a revision was concluded twice"
        published = [words for key, words in looks if key == row.key]
        assert sorted(int(words.split()[0]) for words in published) == list(numbers)
    assert audit.verify(state) > 0
    assert sum(sent.values()) == sum(row.instances for row in rows)


def _lines(path: Path) -> list[str]:
    return sorted(set(path.read_text().split()))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Run, check and print what was done."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--studies", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--settle", type=float, default=300, help="most seconds after the last kill"
    )
    parser.add_argument("--folder", type=Path, help="work here; by default in a temporary folder")
    parser.add_argument("--as", dest="name", help=argparse.SUPPRESS)
    parser.add_argument("--boot", type=int, default=0, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.name:
        run_as(chosen.name, chosen.folder, chosen.boot)
        return
    with contextlib.ExitStack() as stack:
        folder = chosen.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        box = Box(folder)
        box.state.create()
        with_bleed = draw_studies(folder, chosen.studies)
        stack.callback(lambda: [one.kill() for one in box.running.values() if one.poll() is None])
        start = time.monotonic()
        counted = cut_at_random(box, chosen.kills, chosen.seed)
        asked = settle(box, chosen.settle)
        check(box, with_bleed, chosen.studies)
        shown = {
            "kills": dict(counted), "studies": chosen.studies, "asked_again": asked,
            "seconds": round(time.monotonic() - start, 1),
        }  # fmt: skip
        print(json.dumps(shown))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
