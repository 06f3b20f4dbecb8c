"""What is made of a result, held against the standard by other people's programs."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_charset_files, get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from support.clinic_peers import needs
from support.sample_results import (
    KINDS,
    publish,
    sample_report,
    sample_settings,
    sample_state,
    sop_uid,
    with_second_protocol,
    write_study,
)

from edge_medgemma.runtime.clinic.delivery.codes import PRIVATE_SCHEME
from edge_medgemma.runtime.clinic.delivery.content import tell
from edge_medgemma.runtime.clinic.delivery.deliverables import build_deliverables
from edge_medgemma.runtime.clinic.delivery.fhir_checks import ABSENT
from edge_medgemma.runtime.clinic.delivery.manifest import read_manifest
from edge_medgemma.runtime.clinic.settings import ClinicSettings, Peer, ResultKind, Site
from edge_medgemma.runtime.clinic.worklist.records import Doubt
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.reporting.words import DOUBTS
from edge_medgemma.runtime.triage.report import TriageReport
from edge_medgemma.runtime.triage.urgency import Urgency


def built(
    folder: Path,
    kind: str = "ct",
    report: TriageReport | None = None,
    doubts: tuple[Doubt, ...] = (),
    settings: ClinicSettings | None = None,
    **changes: object,
) -> Path:
    """The outbox folder of one result about a study of that kind."""
    state = sample_state(folder / "state")
    key = write_study(state, kind, **changes)
    publish(state, key, report or sample_report(kind), doubts=doubts)
    build_deliverables(state, settings or without_pdf(), key, 1)
    return state.outbox / f"{key}-1"


def without_pdf() -> ClinicSettings:
    """All kinds but the one that takes a second to make."""
    kinds = (ResultKind.SR, ResultKind.KOS, ResultKind.SC)
    return sample_settings(Peer("archive", "ARCHIVE", "127.0.0.1", 1, results=kinds))


def objects(folder: Path) -> dict[ResultKind, Dataset]:
    """Kind to object, of those of which there is one."""
    return {one.kind: dcmread(folder / one.file) for one in read_manifest(folder).objects}


def words(dataset: Dataset) -> str:
    """All text of a dataset."""
    return "\n".join(str(element.value) for element in dataset.iterall() if element.VR != "SQ")


def items(dataset: Dataset) -> list[Dataset]:
    """All content items of a structured report."""
    found = []
    for item in dataset.get("ContentSequence", []):
        found += [item, *items(item)]
    return found


def coded(dataset: Dataset, name: str) -> list[str]:
    """Values of the code items of that name."""
    return [
        item.ConceptCodeSequence[0].get("CodeValue") or item.ConceptCodeSequence[0].LongCodeValue
        for item in items(dataset)
        if item.ValueType == "CODE" and item.ConceptNameCodeSequence[0].CodeMeaning == name
    ]


@needs("dciodvfy", "dsrdump")
@pytest.mark.parametrize("kind", KINDS)
def test_objects_about_every_kind_of_image_keep_to_the_standard(tmp_path: Path, kind: str) -> None:
    flagged = ("intracranial_haemorrhage", "mass_effect", "pneumothorax", "lung_nodule_or_mass")
    folder = built(tmp_path, kind, sample_report(kind, flagged=flagged), settings=sample_settings())
    made = objects(folder)
    assert set(made) == set(ResultKind)
    for entry in read_manifest(folder).objects:
        done = subprocess.run(
            ["dciodvfy", folder / entry.file], check=False, capture_output=True, text=True
        )
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
        assert not errors, f"{entry.file}: {errors}"
        assert made[entry.kind].StudyInstanceUID == "1.2.3.4.1"
        assert made[entry.kind].PatientName == "PLANTED^NAME"
        assert made[entry.kind].AccessionNumber == "PLANTED-ACC"
    (report,) = (one for one in read_manifest(folder).objects if one.kind is ResultKind.SR)
    dump = subprocess.run(
        ["dsrdump", "+U8", folder / report.file], check=False, capture_output=True, text=True
    )
    assert dump.returncode == 0, dump.stderr
    assert "Imaging Measurement Report" in dump.stdout


def test_flagged_findings_are_coded_and_the_others_named_in_one_text(tmp_path: Path) -> None:
    report = sample_report("ct", flagged=("intracranial_haemorrhage", "mass_effect"))
    made = objects(built(tmp_path, "ct", report))[ResultKind.SR]
    assert coded(made, "Finding category") == ["RID49480", "RID49480"]
    assert coded(made, "Finding") == ["1386000", "mass_effect"]
    assert coded(made, "Presence of property") == ["52101004", "52101004"]
    (impression,) = [
        item.TextValue
        for item in items(made)
        if item.ValueType == "TEXT" and item.ConceptNameCodeSequence[0].CodeMeaning == "Impressions"
    ]
    assert (
        "which is not a normal report: Skull fracture, Acute infarct, Hydrocephalus" in impression
    )
    everything = words(made)
    assert everything.count("Hydrocephalus") == 1
    assert ABSENT not in everything
    assert "absent" not in everything.lower()
    for log_odds in ("7.12", "5.43", "3.45"):
        assert log_odds not in everything
    assert (made.CompletionFlag, made.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert made.PreliminaryFlag == "PRELIMINARY"
    assert PRIVATE_SCHEME in everything


def test_a_result_without_a_flag_says_so_and_has_no_category(tmp_path: Path) -> None:
    made = objects(built(tmp_path, "ct", sample_report("ct", flagged=())))
    report = made[ResultKind.SR]
    assert coded(report, "Finding category") == []
    assert "No flag raised: not a normal report" in words(report)
    assert made[ResultKind.KOS].ContentSequence


def test_key_slices_of_a_multi_frame_image_are_its_frames(tmp_path: Path) -> None:
    from support.enhanced import write_enhanced

    state = sample_state(tmp_path / "state")
    key = state.study_key("1.2.3.4.1")
    source = write_enhanced(state.spool / key / "one.dcm")
    report = sample_report("enhanced_ct")
    publish(state, key, report)
    build_deliverables(state, without_pdf(), key, 1)
    made = objects(state.outbox / f"{key}-1")[ResultKind.SR]
    references = [
        item.ReferencedSOPSequence[0] for item in items(made) if item.ValueType == "IMAGE"
    ]
    assert [one.ReferencedSOPInstanceUID for one in references] == [source.SOPInstanceUID]
    assert list(references[0].ReferencedFrameNumber) == [3, 5]


def test_key_slices_are_referred_to_by_their_own_identifiers(tmp_path: Path) -> None:
    made = objects(built(tmp_path))
    expected = {sop_uid("ct", "1", 1), sop_uid("ct", "1", 3)}
    for kind in (ResultKind.SR, ResultKind.KOS):
        found = {
            item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            for item in items(made[kind])
            if item.ValueType == "IMAGE"
        }
        assert expected <= found
    listed = words(made[ResultKind.KOS])
    assert made[ResultKind.SR].SOPInstanceUID in listed
    assert made[ResultKind.SC].SOPInstanceUID in listed


def test_a_study_with_doubts_is_said_to_be_incomplete_and_is_never_green(tmp_path: Path) -> None:
    folder = built(tmp_path, "ct", sample_report("ct", flagged=()), doubts=(Doubt.ABORTED,))
    report = objects(folder)[ResultKind.SR]
    assert "may be incomplete: the transfer of the images broke off" in words(report)
    assert "Not assessable" in words(report)


@pytest.mark.parametrize("doubt", Doubt)
def test_every_doubt_is_said(doubt: Doubt, tmp_path: Path) -> None:
    state = sample_state(tmp_path / "state")
    key = write_study(state, "ct")
    publish(state, key, sample_report("ct", flagged=()), doubts=(doubt,))
    with Worklist.open(state) as worklist:
        told = tell(sample_report("ct", flagged=()), 1, worklist.study(key))
    is_green = told.urgency is Urgency.ROUTINE
    assert is_green == (doubt is Doubt.CLOCK_NOT_SET)  # the images are all there
    assert DOUBTS[doubt].rstrip(".")[1:] in told.impression


def test_a_flag_that_only_an_earlier_look_raised_stands(tmp_path: Path) -> None:
    state = sample_state(tmp_path / "state")
    key = write_study(state, "ct")
    publish(state, key, sample_report("ct"))
    publish(state, key, sample_report("ct", flagged=()), 2)
    build_deliverables(state, without_pdf(), key, 2)
    report = objects(state.outbox / f"{key}-2")[ResultKind.SR]
    assert coded(report, "Finding category") == ["RID49480"]
    assert coded(report, "Presence of property") == ["52101004"]
    assert "an earlier look flagged Intracranial haemorrhage" in words(report)
    assert "Critical: look now" in words(report)


def test_two_protocols_of_one_study_stand_in_one_report_with_a_picture_each(tmp_path: Path) -> None:
    both = with_second_protocol(
        sample_report("ct"), sample_report("ct", protocol_name="head_ct_demo")
    )
    folder = built(tmp_path, "ct", both)
    made = [one.kind for one in read_manifest(folder).objects]
    assert made.count(ResultKind.SC) == 2
    report = objects(folder)[ResultKind.SR]
    assert coded(report, "Finding") == ["1386000", "1386000"]


@pytest.mark.parametrize("path", get_charset_files("*.dcm"), ids=lambda path: Path(path).stem)
def test_names_keep_their_letters_in_every_character_set(tmp_path: Path, path: str) -> None:
    from edge_medgemma.runtime.clinic.delivery.measurement_report import measurement_report
    from edge_medgemma.runtime.clinic.delivery.source import read_source

    original = dcmread(path)
    original.decode()
    if "PatientName" not in original:  # two of the files have it within a sequence
        original.PatientName = next(one.value for one in original.iterall() if one.VR == "PN")
    original.StudyInstanceUID, original.SOPInstanceUID = "1.2.3.4.1", sop_uid("ct", "1", 1)
    original.SeriesInstanceUID, original.SOPClassUID = "1.2.3.4.1.1", CTImageStorage
    original.save_as(tmp_path / "source.dcm")
    source = read_source(tmp_path, "1.2.3.4.1", {original.SOPInstanceUID})
    told = tell(sample_report("ct"), 1, None)
    made = measurement_report(
        told, source, {}, sop_instance_uid="2.25.1", series_uid="2.25.2", earlier=None
    )
    made.save_as(tmp_path / "report.dcm", enforce_file_format=True)
    again = dcmread(tmp_path / "report.dcm")
    assert again.SpecificCharacterSet == "ISO_IR 192"
    assert str(again.PatientName) == str(original.PatientName)
    assert "?" not in str(again.PatientName)


def test_the_procedure_keeps_its_letters_in_the_report(tmp_path: Path) -> None:
    procedure = Dataset()
    procedure.CodeValue, procedure.CodingSchemeDesignator = "17", "99HOSPITAL"
    procedure.CodeMeaning = "頭部CT"
    folder = built(
        tmp_path, ProcedureCodeSequence=[procedure], PatientName="Yamada^Tarou=山田^太郎",
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
    )  # fmt: skip
    report = objects(folder)[ResultKind.SR]
    assert "頭部CT" in words(report)
    assert coded(report, "Procedure reported") == ["17"]
    assert report.PatientName == "Yamada^Tarou=山田^太郎"


@pytest.mark.parametrize(
    "name",
    [
        "हरि^शर्मा",
        "محمد^أحمد",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
        "Hong^Gildong=洪^吉洞=홍^길동",
    ],
)
def test_names_in_other_scripts_stand_in_every_object(tmp_path: Path, name: str) -> None:
    folder = built(tmp_path, "ct", PatientName=name, SpecificCharacterSet="ISO_IR 192")
    assert {str(one.PatientName) for one in objects(folder).values()} == {name}


def test_what_the_images_lack_stays_empty(tmp_path: Path) -> None:
    missing = dict.fromkeys(
        ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
         "StudyID", "AccessionNumber", "ReferringPhysicianName", "SpecificCharacterSet",
         "StudyDescription", "Manufacturer", "SeriesNumber", "BodyPartExamined"),
    )  # fmt: skip
    for one in objects(built(tmp_path, "cr", **missing)).values():
        assert not one.PatientName
        assert not one.PatientID
        assert not one.StudyDate
        assert not one.AccessionNumber


def test_values_that_are_not_valid_are_not_written_on(tmp_path: Path) -> None:
    folder = built(tmp_path, PatientSex="FEMALE", PatientBirthDate="", StudyTime="")
    for one in objects(folder).values():
        assert one.PatientSex == ""


def test_built_twice_it_is_the_same_result(tmp_path: Path) -> None:
    first, second = built(tmp_path / "a"), built(tmp_path / "b")
    uids = [[o.sop_instance_uid for o in read_manifest(f).objects] for f in (first, second)]
    assert uids[0] == uids[1]
    assert len(set(uids[0])) == len(uids[0])


def test_another_result_is_another_object(tmp_path: Path) -> None:
    later = sample_report("ct", created_at="2026-11-28T21:30:00+00:00")
    first, second = built(tmp_path / "a"), built(tmp_path / "b", "ct", later)
    uids = [{o.sop_instance_uid for o in read_manifest(f).objects} for f in (first, second)]
    assert not uids[0] & uids[1]


def test_a_damaged_folder_is_made_again_and_a_whole_one_left_alone(tmp_path: Path) -> None:
    state = sample_state(tmp_path / "state")
    key = write_study(state, "ct")
    publish(state, key, sample_report("ct"))
    folder = state.outbox / f"{key}-1"
    build_deliverables(state, without_pdf(), key, 1)
    before = (folder / "manifest.json").stat().st_mtime_ns
    build_deliverables(state, without_pdf(), key, 1)
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    damaged = folder / read_manifest(folder).objects[0].file
    damaged.write_bytes(damaged.read_bytes()[:-4])
    build_deliverables(state, without_pdf(), key, 1)
    assert (folder / "manifest.json").stat().st_mtime_ns != before


@pytest.mark.parametrize("field", ["is_demonstration", "has_random_weights"])
def test_a_demonstration_leaves_only_where_the_site_is_one(tmp_path: Path, field: str) -> None:
    state = sample_state(tmp_path / "state")
    key = write_study(state, "ct")
    report = sample_report("ct")
    publish(state, key, replace(report, engine=replace(report.engine, **{field: True})))
    build_deliverables(state, without_pdf(), key, 1)
    assert not list(state.outbox.glob("*-1"))
    build_deliverables(state, replace(without_pdf(), site=Site(demonstration=True)), key, 1)
    for one in objects(state.outbox / f"{key}-1").values():
        assert one.SeriesDescription.startswith("DEMONSTRATION, NOT FOR PATIENTS")


def test_without_a_destination_nothing_is_made(tmp_path: Path) -> None:
    state = sample_state(tmp_path / "state")
    key = write_study(state, "ct")
    publish(state, key, sample_report("ct"))
    build_deliverables(state, replace(without_pdf(), peers=()), key, 1)
    assert not list(state.outbox.glob("*-1"))


def test_a_study_that_was_deleted_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    state = sample_state(tmp_path / "state")
    publish(state, state.study_key("1.2.3.4.1"), sample_report("ct"))
    with pytest.raises(ScanError, match="send the study again"):
        build_deliverables(state, without_pdf(), state.study_key("1.2.3.4.1"), 1)
    assert not list(state.outbox.glob("*-1"))


def test_files_that_are_no_images_do_not_disturb(tmp_path: Path) -> None:
    state = sample_state(tmp_path / "state")
    key = write_study(state, "ct")
    (state.spool / key / "notes.txt").write_text("not DICOM")
    (state.spool / key / "cut.dcm").write_bytes(
        Path(get_testdata_file("CT_small.dcm") or "").read_bytes()[:200]
    )
    publish(state, key, sample_report("ct"))
    build_deliverables(state, without_pdf(), key, 1)
    assert len(objects(state.outbox / f"{key}-1")) == 3


@pytest.mark.parametrize("other", [{"PatientID": "OTHER"}, {"PatientName": "Other^Name"}])
def test_a_study_of_several_people_is_filed_under_none_of_them(
    tmp_path: Path, other: dict[str, str]
) -> None:
    state = sample_state(tmp_path / "state")
    key = write_study(state, "ct")
    path = next((state.spool / key).glob("*.dcm"))
    image = dcmread(path)
    for keyword, value in other.items():
        setattr(image, keyword, value)
    image.save_as(path)
    publish(state, key, sample_report("ct"))
    with pytest.raises(ScanError, match="several people"):
        build_deliverables(state, without_pdf(), key, 1)
    assert not list(state.outbox.glob("*-1"))
