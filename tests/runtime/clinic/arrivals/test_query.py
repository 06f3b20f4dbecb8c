"""Questions to archives: what is counted, and what a peer that is away or misbehaves costs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from support.clinic_archive import answer, bad_archive, silence
from support.clinic_peers import DicomAddress, Orthanc, free_port, needs, running_orthanc
from support.synthetic_series import write_head_ct

from edge_medgemma.runtime.clinic.arrivals import count, query
from edge_medgemma.runtime.clinic.arrivals.count import archive_counts, expected_images
from edge_medgemma.runtime.clinic.arrivals.query import FIND_OFFER, Archive, StudyQuestion
from edge_medgemma.runtime.clinic.association import Offer, associated
from edge_medgemma.runtime.clinic.settings import ClinicSettings, Peer
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.errors import PeerError, ScanError


def peer_at(address: DicomAddress, name: str = "archive") -> Peer:
    return Peer(name, address.ae_title, address.host, address.port, query=True)


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "state")


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """Two studies, the first with a report and a secondary capture beside three CT slices."""
    folder = tmp_path_factory.mktemp("orthanc")
    scan = write_head_ct(folder / "scan", slices=3, study="82", StudyDate="20260102")
    for number, (modality, sop_class) in enumerate(
        [("SR", "1.2.840.10008.5.1.4.1.1.88.33"), ("OT", "1.2.840.10008.5.1.4.1.1.7")], start=5
    ):
        dataset = dcmread(next(iter(sorted(scan.iterdir()))))
        dataset.SeriesInstanceUID = f"1.2.3.82.{number}"
        dataset.SOPInstanceUID = f"1.2.3.82.{number}.1"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
        dataset.Modality = modality
        dataset.save_as(scan / f"{modality}.dcm")
    later = write_head_ct(
        folder / "later", slices=2, study="83", StudyDate="20260103", PatientID="Ä-7",
        SpecificCharacterSet="ISO_IR 192", AccessionNumber="A83",
    )  # fmt: skip
    with running_orthanc(folder / "storage", check_called_ae_title=True) as orthanc:
        orthanc.upload(scan, later)
        yield orthanc


@needs("Orthanc")
@pytest.mark.parametrize(
    ("question", "uids"),
    [
        (StudyQuestion(study_uid="1.2.3.82"), ["1.2.3.82"]),
        (StudyQuestion(accession="A83"), ["1.2.3.83"]),
        (StudyQuestion(patient_id="Ä-7"), ["1.2.3.83"]),
        (StudyQuestion(date="20260101-20260131"), ["1.2.3.83", "1.2.3.82"]),
        (StudyQuestion(date="20260101-20260131", modality="MR"), []),
        (StudyQuestion(date="20260102", modality="CT"), ["1.2.3.82"]),
    ],
)
def test_studies_are_found(
    orthanc: Orthanc, state: StateFolder, question: StudyQuestion, uids: list[str]
):
    peer = peer_at(orthanc.address)
    with associated(state, ClinicSettings(), peer, [FIND_OFFER]) as opened:
        archive = Archive(peer, opened)
        assert [study.study_uid for study in archive.studies(question)] == uids
        if uids == ["1.2.3.82"]:
            assert {one.modality for one in archive.series("1.2.3.82")} == {"CT", "SR", "OT"}


@pytest.mark.parametrize(
    "question",
    [StudyQuestion(), StudyQuestion(modality="CT"), StudyQuestion(accession="*")]
    + [StudyQuestion(patient_id=text) for text in ("A?1", "A\\B", "A\n1")],
)
def test_no_question_asks_for_everything(question: StudyQuestion):
    with pytest.raises(ScanError):
        question.check()


@needs("Orthanc")
def test_an_archive_counts_images_without_reports(orthanc: Orthanc, state: StateFolder):
    away = peer_at(DicomAddress("AWAY", free_port()), "away")
    unasked = Peer("unasked", "ORTHANC", "127.0.0.1", orthanc.address.port)
    settings = ClinicSettings(peers=(away, unasked, peer_at(orthanc.address)))
    counts = archive_counts(state, settings, "1.2.3.82")
    assert [(one.peer, one.images) for one in counts] == [("away", None), ("archive", 3)]
    assert "is away" in counts[0].problem
    assert expected_images(counts) == 3
    assert expected_images(archive_counts(state, settings, "1.2.3.99")) is None


@needs("Orthanc")
def test_a_wrong_ae_title_is_named(orthanc: Orthanc, state: StateFolder):
    wrong = peer_at(DicomAddress("WRONG", orthanc.address.port))
    with (
        pytest.raises(PeerError, match=r"it is not called 'WRONG'; correct ae_title"),
        associated(state, ClinicSettings(), wrong, [FIND_OFFER]),
    ):
        pass
    peer = peer_at(orthanc.address)
    with (
        pytest.raises(PeerError, match="offers nothing of what is asked"),
        associated(state, ClinicSettings(), peer, [Offer("1.2.3.4", query.LITTLE_ENDIAN)]),
    ):
        pass


def test_a_silent_archive_is_a_line(state: StateFolder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(count, "ANSWER_TIMEOUT_S", 0.3)
    with silence() as handler, bad_archive(handler) as address:
        (one,) = archive_counts(state, ClinicSettings(peers=(peer_at(address),)), "1.2.3")
    assert one.images is None
    assert "fell silent" in one.problem


@pytest.mark.parametrize(
    ("answers", "images", "problem"),
    [
        ([(0xA700, None)], None, "status A700"),
        ([answer(SeriesInstanceUID="1.2", Modality="CT")], None, "does not count"),
        (
            [
                answer(SeriesInstanceUID="1.2", Modality="CT", NumberOfSeriesRelatedInstances=4),
                answer(SeriesInstanceUID="1.2", Modality="CT", NumberOfSeriesRelatedInstances=4),
                answer(SeriesInstanceUID="1.3", Modality="KO", NumberOfSeriesRelatedInstances=9),
                answer(SeriesInstanceUID="1.4", Modality="SR"),
            ],
            4,
            "",
        ),
    ],
)
def test_counts_of_odd_archives(state: StateFolder, answers: list, images: object, problem: str):
    with bad_archive(lambda _: iter(answers)) as address:
        (one,) = archive_counts(state, ClinicSettings(peers=(peer_at(address),)), "1.2.3")
    assert one.images == images
    assert problem in one.problem


def test_an_archive_without_end_is_cut_off(state: StateFolder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(query, "MOST_SERIES", 5)
    answers = [answer(SeriesInstanceUID=f"1.{number}", Modality="CT") for number in range(50)]
    with bad_archive(lambda _: iter(answers)) as address:
        (one,) = archive_counts(state, ClinicSettings(peers=(peer_at(address),)), "1.2.3")
    assert "more than 5" in one.problem
