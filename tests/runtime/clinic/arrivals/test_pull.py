"""`edge-medgemma clinic pull` against a real Orthanc, by GET, MOVE and WADO-RS, whole and broken off."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
from click.testing import CliRunner, Result
from pydicom import dcmread
from support.clinic_archive import answer, bad_archive
from support.clinic_node import ClinicNode, clinic_node
from support.clinic_peers import DicomAddress, Orthanc, free_port, needs, running_orthanc
from support.synthetic_series import CANARY, write_head_ct

from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.records import Doubt, StudyRow, StudyState
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.errors import EdgeMedgemmaError, PeerError


@dataclass(frozen=True, slots=True)
class Box:
    """A state folder and settings with one archive; the node need not run."""

    state: StateFolder
    settings: Path

    def pull(self, *words: str, stdin: str = "") -> Result:
        place = ["--state", str(self.state.path), "--settings", str(self.settings)]
        return CliRunner().invoke(cli, ["clinic", "pull", *words, *place], input=stdin)

    def row(self, study_uid: str) -> StudyRow:
        with Worklist.open(self.state) as worklist:
            row = worklist.study(self.state.study_key(study_uid))
        assert row is not None
        return row


def box_with(
    folder: Path, address: DicomAddress, web_url: str = "", node_port: int | None = None
) -> Box:
    settings = folder / "clinic.toml"
    settings.write_text(
        f"node.port = {node_port or free_port()}\nnode.reserve_gb = 0.05\n[[peers]]\n"
        f'name = "archive"\nae_title = "{address.ae_title}"\nhost = "{address.host}"\n'
        f"port = {address.port}\n" + (f'dicomweb_url = "{web_url}"\n' if web_url else "")
    )
    state = StateFolder(folder / "state")
    state.create()
    return Box(state, settings)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClinicNode]:
    with clinic_node(tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, node: ClinicNode) -> Iterator[Orthanc]:
    """Three studies: one with a report, one in JPEG 2000, one plain."""
    folder = tmp_path_factory.mktemp("orthanc")
    scan = write_head_ct(folder / "plain", slices=6, study="61", AccessionNumber="A61")
    report = dcmread(next(iter(sorted(scan.iterdir()))))
    report.SeriesInstanceUID, report.SOPInstanceUID, report.Modality = "1.2.9.1", "1.2.9.2", "SR"
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    report.save_as(scan / "report.dcm")
    packed = write_head_ct(folder / "packed", slices=5, study="62", AccessionNumber="A62")
    for path in packed.iterdir():
        image = dcmread(path)
        image.compress("1.2.840.10008.1.2.5")
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID
        image.save_as(path)
    with running_orthanc(folder / "storage", modalities=[node.address]) as orthanc:
        orthanc.upload(scan, packed)
        yield orthanc


@pytest.fixture
def box(tmp_path: Path, orthanc: Orthanc) -> Box:
    return box_with(tmp_path, orthanc.address, orthanc.dicomweb_url)


pytestmark = needs("Orthanc")


@pytest.mark.command("clinic pull")
@pytest.mark.parametrize("way", ["get", "web"])
@pytest.mark.parametrize(("number", "images"), [(1, 6), (2, 5)])
def test_a_study_is_pulled_by_its_accession_number(box: Box, way: str, number: int, images: int):
    done = box.pull("archive", "--accession", "--yes", "--way", way, stdin=f"A6{number}\n")
    assert done.exit_code == 0, (done.output, done.exception)
    assert f"{images} of {images} images" in done.output
    assert CANARY not in done.output and f"A6{number}" not in done.output
    row = box.row(f"1.2.3.6{number}")
    assert (row.instances, row.expected_instances, row.doubts) == (images, images, ())
    assert (row.state, row.senders) == (StudyState.WAITING, ("pull",))
    (syntax,) = {
        dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID.is_compressed
        for path in (box.state.spool / row.key).iterdir()
    }
    assert syntax == (number == 2)
    again = box.pull("archive", "--study", f"1.2.3.6{number}", "--yes", "--way", way)
    assert again.exit_code == 0
    assert box.row(row.study_uid) == row


def test_a_study_is_moved_to_the_running_node(node: ClinicNode, orthanc: Orthanc):
    box = Box(node.state, node.settings)
    node.settings.write_text(
        node.settings.read_text()
        + f'[[peers]]\nname = "archive"\nae_title = "ORTHANC"\nhost = "127.0.0.1"\n'
        f"port = {orthanc.address.port}\n"
    )
    done = box.pull("archive", "--patient", "--yes", "--way", "move", stdin="CANARY-LO\n")
    assert done.exit_code == 0, (done.output, done.exception)
    row = node.settled("1.2.3.61", lambda row: row.state is StudyState.WAITING)
    assert (row.instances, row.expected_instances, row.doubts) == (6, 6, ())
    assert row.senders == ("ORTHANC",)


def test_a_move_needs_the_node(box: Box):
    done = box.pull("archive", "--study", "1.2.3.61", "--yes", "--way", "move")
    assert isinstance(done.exception, PeerError)
    assert "start 'edge-medgemma clinic'" in done.output


@pytest.mark.parametrize(
    ("words", "stdin", "says"),
    [
        (("archive", "--study", "1.2.3.61"), "", "add --yes"),
        (("archive", "--accession", "--yes"), "", "no accession number was given"),
        (("archive", "--accession", "--yes"), "*\n", "give it in full"),
        (("archive", "--accession", "--yes"), "UNKNOWN\n", "no study with images that matches"),
        (("archive", "--date", "yesterday"), "", "a date is YYYYMMDD"),
        (("archive",), "", "say which study"),
        (("elsewhere",), "", "there are: archive"),
    ],
)
def test_a_question_that_is_none_is_one_line(box: Box, words: tuple, stdin: str, says: str):
    done = box.pull(*words, stdin=stdin)
    assert isinstance(done.exception, EdgeMedgemmaError)
    assert says in str(done.exception)
    assert not box.state.database.exists()


def test_a_pull_that_breaks_off_is_said_and_repeated(tmp_path: Path, orthanc: Orthanc):
    scan = write_head_ct(tmp_path / "scan", slices=8, study="63")
    orthanc.upload(scan)
    wire = Wire(orthanc.address.port, breaks_after_bytes=14_000)
    address = DicomAddress("ORTHANC", wire.port)
    box = box_with(tmp_path, address)
    with wire:
        done = box.pull("archive", "--study", "1.2.3.63", "--yes")
        assert isinstance(done.exception, PeerError)
        assert "pull again for the rest" in str(done.exception)
        row = box.row("1.2.3.63")
        assert 0 < row.instances < 8
        assert row.doubts == (Doubt.FEWER_THAN_ARCHIVE,)
        wire.breaks_after_bytes = None
        done = box.pull("archive", "--study", "1.2.3.63", "--yes")
        assert done.exit_code == 0, done.output
    assert (box.row("1.2.3.63").instances, box.row("1.2.3.63").doubts) == (8, ())
    assert list(box.state.incoming.glob("*.dcm")) == []


def test_an_archive_whose_counters_do_not_match_is_not_believed(tmp_path: Path):
    """It says that it has four images, sends two and calls that a success."""
    scan = write_head_ct(tmp_path / "scan", slices=2, study="64")
    images = [dcmread(path) for path in sorted(scan.iterdir())]

    def on_find(event: Any) -> Iterator[Any]:
        level = event.identifier.QueryRetrieveLevel
        keys = {"StudyInstanceUID": "1.2.3.64"}
        if level == "SERIES":
            keys |= {"SeriesInstanceUID": "1.2.3.64.1", "Modality": "CT"}
            yield answer(**keys, NumberOfSeriesRelatedInstances=4)
        else:
            yield answer(**keys, QueryRetrieveLevel="STUDY")

    def on_get(event: Any) -> Iterator[Any]:
        yield len(images)
        for image in images:
            yield 0xFF00, image

    with bad_archive(on_find, on_get) as address:
        box = box_with(tmp_path, address)
        done = box.pull("archive", "--study", "1.2.3.64", "--yes", "--way", "get")
    assert isinstance(done.exception, PeerError)
    assert "fewer images came than the archive has" in done.output
    row = box.row("1.2.3.64")
    assert (row.instances, row.expected_instances) == (2, 4)
    assert row.doubts == (Doubt.FEWER_THAN_ARCHIVE,)


def test_an_archive_that_is_away_is_one_line(tmp_path: Path):
    box = box_with(tmp_path, DicomAddress("AWAY", free_port()))
    done = box.pull("archive", "--study", "1.2.3.65", "--yes")
    assert isinstance(done.exception, PeerError)
    assert "is away" in str(done.exception)


def test_a_full_disk_ends_a_pull(box: Box):
    box.settings.write_text(box.settings.read_text().replace("0.05", "1e9"))
    done = box.pull("archive", "--study", "1.2.3.61", "--yes", "--way", "get")
    assert "free some space" in str(done.exception)


class Wire:
    """A cable to a port that is cut after some bytes of an answer."""

    def __init__(self, target: int, breaks_after_bytes: int | None) -> None:
        self.breaks_after_bytes = breaks_after_bytes
        self._target = target
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._socket.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=_copy, args=(near, far, None), daemon=True).start()
            left = self.breaks_after_bytes
            threading.Thread(target=_copy, args=(far, near, left), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket, left: int | None) -> None:
    with contextlib.suppress(OSError):
        while (data := source.recv(4096)) and (left is None or left > 0):
            target.sendall(data)
            left = None if left is None else left - len(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
