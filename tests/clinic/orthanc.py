"""The box and a real Orthanc, both ways, with 100 slices of 512 x 512: `make clinic-check`.

PYTHONPATH=tests python -m clinic.orthanc
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from clinic.checks import Checks, wait_until
from support.clinic_node import ClinicNode, clinic_node
from support.clinic_peers import DicomAddress, Orthanc, dcmsend, free_port, running_orthanc
from support.synthetic_series import CANARY, write_head_ct

from edge_medgemma.runtime.clinic.arrivals.spool import Spool
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.records import Doubt, StudyRow, StudyState
from edge_medgemma.runtime.clinic.worklist.store import Worklist

SLICES = 100
STUDY = "1.2.3.51"
"""What Orthanc sends to the box, and the box pulls."""
MODALITY_FIRST = "1.2.3.52"
"""What dcmsend brings to the box of which Orthanc has more."""


def main() -> None:
    """Run all checks."""
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="clinic-check-") as name:
        folder = Path(name)
        with running_orthanc(folder / "orthanc", check_called_ae_title=True) as orthanc:
            scan = _slices(folder / "scan", "51", SLICES)
            checks.say(f"Orthanc at port {orthanc.address.port}")
            orthanc.upload(scan)
            with clinic_node(folder / "box", other_settings=_peers(orthanc)) as node:
                orthanc.add_modality(node.address)
                _receives(checks, orthanc, node)
                _counts(checks, orthanc, node, folder)
                _moves(checks, folder, node)
                _refuses(checks, orthanc, node, folder)
                _names_nobody(checks, node)
            _pulls(checks, orthanc, folder)
            _pulls_what_is_away(checks, folder)
    checks.finish()


def _slices(folder: Path, study: str, count: int) -> Path:
    """A head CT of `count` slices of half a megabyte."""
    return write_head_ct(
        folder, slices=count, study=study, step_mm=1.5, Rows=512, Columns=512,
        PixelSpacing=[0.4, 0.4], PixelData=bytes(2 * 512 * 512), AccessionNumber=f"A{study}",
    )  # fmt: skip


def _peers(orthanc: Orthanc) -> str:
    """Orthanc, one that is away, and one of a wrong AE title."""
    blocks = [
        ("archive", orthanc.address.ae_title, orthanc.address.port),
        ("away", "AWAY", free_port()),
        ("wrong", "WRONG", orthanc.address.port),
    ]
    tables = "".join(
        f'[[peers]]\nname = "{name}"\nae_title = "{title}"\nhost = "127.0.0.1"\nport = {port}\n'
        f"query = {'true' if name != 'wrong' else 'false'}\n"
        for name, title, port in blocks
    )
    return tables.replace(
        'name = "archive"\n', f'name = "archive"\ndicomweb_url = "{orthanc.dicomweb_url}"\n'
    )


def _row(state: StateFolder, study_uid: str) -> StudyRow | None:
    with Worklist.open(state) as worklist:
        return worklist.study(state.study_key(study_uid))


def _is_waiting(state: StateFolder, study_uid: str) -> bool:
    row = _row(state, study_uid)
    return row is not None and row.state is StudyState.WAITING


def _receives(checks: Checks, orthanc: Orthanc, node: ClinicNode) -> None:
    began_s = time.monotonic()
    orthanc.send_study(STUDY)
    rate = SLICES / (time.monotonic() - began_s)
    checks.check("Orthanc sends 100 slices", len(node.received(STUDY)) == SLICES, f"{rate:.0f}/s")
    checks.check(
        "the archive counts as many, so the engine is told to look",
        wait_until(lambda: _is_waiting(node.state, STUDY), 15),
    )
    before = _row(node.state, STUDY)
    orthanc.send_study(STUDY)
    time.sleep(2)
    after = _row(node.state, STUDY)
    assert before is not None and after is not None
    is_same = (before.revision, before.instances) == (after.revision, after.instances)
    checks.check("sent again, nothing is new", is_same and after.doubts == (), after.doubts)
    checks.check("Orthanc's echo is answered", orthanc.echo())


def _counts(checks: Checks, orthanc: Orthanc, node: ClinicNode, folder: Path) -> None:
    """60 slices arrive, the archive has 80: said; the rest arrives, and the archive's report no more."""
    scan = _slices(folder / "later", "52", 80)
    orthanc.upload(scan)
    files = sorted(scan.iterdir())
    checks.check("dcmsend brings 60", dcmsend(node.address, *files[:60]).returncode == 0)

    def doubts() -> tuple[Doubt, ...]:
        row = _row(node.state, MODALITY_FIRST)
        return () if row is None else row.doubts

    is_said = wait_until(lambda: Doubt.FEWER_THAN_ARCHIVE in doubts(), 20)
    checks.check("the archive has 80: may be incomplete", is_said, doubts())
    dcmsend(node.address, *files[60:])
    checks.check("with all 80 that is taken back", wait_until(lambda: not doubts(), 20), doubts())


def _moves(checks: Checks, folder: Path, node: ClinicNode) -> None:
    spool = node.state.spool / node.state.study_key(MODALITY_FIRST)
    for path in sorted(spool.iterdir())[:10]:
        path.unlink()
    done = _pull(node.state, node.settings, "archive", "--study", MODALITY_FIRST, "--way", "move")
    here = len(Spool(node.state).files(node.state.study_key(MODALITY_FIRST)))
    checks.check("C-MOVE brings what was lost", done.returncode == 0 and here == 80, here)


def _refuses(checks: Checks, orthanc: Orthanc, node: ClinicNode, folder: Path) -> None:
    wrong = DicomAddress("NOTOURS", node.address.port, name="wrong-title")
    orthanc.add_modality(wrong)
    checks.check("a wrong AE title is refused", not orthanc.echo("wrong-title"))
    done = _pull(node.state, node.settings, "wrong", "--study", STUDY)
    checks.check("a peer of another AE title is named", "is not called 'WRONG'" in done.stderr)
    done = _pull(node.state, node.settings, "away", "--study", STUDY)
    checks.check("a peer that is away is one line", done.stderr.count("\n") == 1, done.stderr)


def _pulls(checks: Checks, orthanc: Orthanc, folder: Path) -> None:
    """Each way into a state folder of its own, no node running."""
    for way in ("get", "web"):
        place = folder / way
        place.mkdir()
        settings = place / "clinic.toml"
        settings.write_text("node.reserve_gb = 0.05\n" + _peers(orthanc))
        state = StateFolder(place / "state")
        began_s = time.monotonic()
        done = _pull(state, settings, "archive", "--accession", "--way", way, stdin="A51\n")
        took_s = time.monotonic() - began_s
        row = _row(state, STUDY)
        is_right = done.returncode == 0 and row is not None and row.instances == SLICES
        checks.check(f"100 slices are pulled by {way}", is_right, f"{took_s:.1f} s with its start")
        checks.check(f"{way}: no number is said", "A51" not in done.stdout + done.stderr)


def _pulls_what_is_away(checks: Checks, folder: Path) -> None:
    """An Orthanc that is killed in the middle of a C-GET, and started again."""
    place = folder / "broken"
    scan = _slices(place / "scan", "53", SLICES)
    state = StateFolder(place / "state")
    settings = place / "clinic.toml"
    with running_orthanc(place / "orthanc") as orthanc:
        orthanc.upload(scan)
        settings.write_text("node.reserve_gb = 0.05\n" + _peers(orthanc))
        pull = _start_pull(state, settings, "archive", "--study", "1.2.3.53")
        wait_until(lambda: state.spool.is_dir() and any(state.spool.glob("*/*")), 30, 0.01)
        orthanc.process.kill()
        _, errors = pull.communicate(timeout=60)
    key = state.study_key("1.2.3.53")
    here = len(Spool(state).files(key))
    checks.check(
        "an archive killed in the middle ends the pull", pull.returncode == 1, errors.strip()
    )
    row = _row(state, "1.2.3.53")
    doubts = () if row is None else row.doubts
    checks.check(
        "what came is kept and doubted", 0 < here < SLICES and bool(doubts), (here, doubts)
    )
    with running_orthanc(place / "orthanc") as orthanc:
        settings.write_text("node.reserve_gb = 0.05\n" + _peers(orthanc))
        done = _pull(state, settings, "archive", "--study", "1.2.3.53")
    row = _row(state, "1.2.3.53")
    is_whole = row is not None and (row.instances, row.doubts) == (SLICES, ())
    checks.check("the same command gets the rest", done.returncode == 0 and is_whole, done.stdout)


def _names_nobody(checks: Checks, node: ClinicNode) -> None:
    kept = [node.log, node.state.audit_file, node.state.database]
    kept += [*node.state.arrivals.iterdir()]
    told = [path.name for path in kept if path.exists() and CANARY.encode() in path.read_bytes()]
    checks.check("no planted name in log, audit, database and records", not told, told or "")


def _start_pull(
    state: StateFolder, settings: Path, peer: str, *words: str
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edge_medgemma", "clinic", "pull", peer, "--yes", *words]
    return subprocess.Popen(
        [*command, "--state", str(state.path), "--settings", str(settings)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _pull(
    state: StateFolder, settings: Path, peer: str, *words: str, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    process = _start_pull(state, settings, peer, *words)
    output, errors = process.communicate(stdin, timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


if __name__ == "__main__":
    main()
