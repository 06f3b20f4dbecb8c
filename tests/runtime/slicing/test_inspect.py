import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from pydicom.encaps import encapsulate
from support.schemas import assert_valid

from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.errors import ResourceError, ScanError

WriteSlice = Callable[..., Path]

HEAD_CT = Path(__file__).resolve().parents[2] / "data/ct_head"

TEXT_KEYWORDS = [
    "PatientName", "PatientID", "PatientAddress", "PatientComments", "OtherPatientIDs",
    "InstitutionName", "ReferringPhysicianName", "AccessionNumber", "StudyID",
    "StudyDescription", "SeriesDescription", "ProtocolName", "Manufacturer", "StationName",
    "ImageComments", "BodyPartExamined", "ConvolutionKernel", "RescaleType", "ImageType",
    "OperatorsName", "RequestedProcedureDescription", "SoftwareVersions", "EthnicGroup",
    "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID",
]  # fmt: skip
PLANTED = "DOE^JANE"


def inspect(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["inspect", *map(str, arguments)])


@pytest.mark.command("inspect")
def test_json_has_the_documented_shape(phantom: Path) -> None:
    (phantom / "notes").write_text("x")
    document = json.loads(inspect(phantom, "--json").output)
    assert_valid(document, "inspect")
    assert document == {
        "volumes": [
            {
                "key": "1.2.3.4",
                "series_uid": "1.2.3.4",
                "modality": "CT",
                "body_parts": ["head"],
                "shape": [9, 16, 24],
                "spacing_mm": [2.5, 0.5, 0.52],
                "orientation": "axial",
                "range": [-1000.0, 80.0],
                "problems": [],
            }
        ],
        "skipped": [{"path": "notes", "reason": "neither DICOM nor NIfTI by its content"}],
    }


def test_the_table_shows_the_same(phantom: Path) -> None:
    output = inspect(phantom).output
    assert "CT axial" in output
    assert "9 × 16 × 24" in output
    assert "2.500 × 0.500 × 0.520" in output


def test_the_contact_sheet_shows_every_slice(phantom: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    assert inspect(phantom, "--contact-sheet", sheet).exit_code == 0
    picture = np.asarray(Image.open(sheet))
    assert picture.shape == (28 + 2 * 192, 8 * 192, 3)
    # the block of slice 9 (80 HU) is full blue; that of slice 1 (0 HU) has none
    assert picture[28 + 192 + 96, 96, 2] == 255
    assert picture[28 + 96, 96].tolist() == [128, 98, 0]
    assert list(tmp_path.glob(".*")) == []


def test_a_sheet_that_cannot_be_written_leaves_nothing(phantom: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = inspect(phantom, "--contact-sheet", tmp_path / "file" / "sheet.png")
    assert isinstance(result.exception, ResourceError)


def test_a_series_that_cannot_be_decoded_has_no_range(write_slice: WriteSlice) -> None:
    path = write_slice(0)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.53"  # retired
    dataset.PixelData = encapsulate([b"\0" * 64])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path)
    (volume,) = json.loads(inspect(path, "--json").output)["volumes"]
    assert volume["range"] is None
    (problem,) = volume["problems"]
    assert problem["name"] == "undecodable_slices"
    assert "unsupported transfer syntax (JPEG Spectral Selection" in problem["detail"]
    assert "not decodable" in inspect(path).output


@pytest.mark.filterwarnings("ignore:Invalid value")  # pydicom, when the slices are written
def test_no_text_of_a_header_gets_out(write_slice: WriteSlice) -> None:
    for index, keyword in enumerate(TEXT_KEYWORDS):
        value = ["ORIGINAL", "PRIMARY", PLANTED] if keyword == "ImageType" else PLANTED
        path = write_slice(index, f"slice{index}", **{keyword: value})
    for output in (inspect(path.parent, "--json").output, inspect(path.parent).output):
        assert f"{len(TEXT_KEYWORDS) - 3}" in output  # three stand in series of their own
        assert "DOE" not in output
        assert "JANE" not in output


def test_two_stacks_of_one_series_have_keys_of_their_own(
    phantom: Path, write_slice: WriteSlice
) -> None:
    for index in range(3):
        pixels = np.full((8, 8), 24, np.int16)
        write_slice(index, f"small{index}", SOPInstanceUID=f"1.2.8.{index}", pixels=pixels)
    volumes = json.loads(inspect(phantom, "--json").output)["volumes"]
    assert [volume["key"] for volume in volumes] == ["1.2.3.4", "1.2.3.4#2"]
    assert "series 1.2.3.4#2\n   mixed_series: one series UID" in inspect(phantom).output


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--contact-sheet", "sheet.png"]])
def test_a_missing_scan_is_one_sentence(tmp_path: Path, arguments: list[str]) -> None:
    result = inspect(tmp_path / "nowhere", *arguments)
    assert isinstance(result.exception, ScanError)
    assert "does not exist or cannot be opened; expected a folder" in str(result.exception)


def test_the_head_ct_in_the_repository() -> None:
    listing = json.loads(inspect(HEAD_CT, "--json").output)
    (volume,) = listing["volumes"]
    assert volume["shape"] == [28, 512, 512]
    assert volume["spacing_mm"] == pytest.approx([4.0019, 0.4883, 0.4883], abs=1e-3)
    assert volume["range"] == [-1024, 2121]
    assert volume["problems"] == [
        {"name": "gantry_tilt", "detail": "slices lean by 18.5° from the stack's axis"},
        {"name": "non_uniform_spacing", "detail": "slices are 1.08 to 7.00 mm apart"},
    ]
    assert [file["path"] for file in listing["skipped"]] == ["LICENSE", "SOURCE.txt"]
