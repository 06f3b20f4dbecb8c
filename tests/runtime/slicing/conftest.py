"""Phantom DICOM series of known geometry, written slice by slice."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SHARED_DATA = Path(__file__).resolve().parents[3] / "../shared/data"

WriteSlice = Callable[..., Path]


def phantom_pixels(index: int, rows: int = 16, columns: int = 24) -> NDArray[np.int16]:
    """Air (-1000 HU) with a block of 10·index HU; stored with an intercept of -1024."""
    hounsfield = np.full((rows, columns), -1000, dtype=np.int16)
    hounsfield[4:12, 6:18] = 10 * index
    return hounsfield + 1024


def slice_dataset(index: int, **changes: Any) -> Dataset:
    """An axial CT slice at z = 2.5·index mm.

    `changes` are DICOM keywords (None deletes one), `pixels`, and `elements`, private ones.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    attributes: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(entropy_srcs=["slice", str(index)]),
        "StudyInstanceUID": "1.2.3.1",
        "SeriesInstanceUID": "1.2.3.4",
        "FrameOfReferenceUID": "1.2.3.5",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "BodyPartExamined": "HEAD",
        "InstanceNumber": index + 1,
        "ImagePositionPatient": [-30.0, -20.0, 2.5 * index],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.5, 0.52],
        "SliceThickness": 5,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "pixels": phantom_pixels(index),
    }
    attributes.update(changes)
    pixels = attributes.pop("pixels")
    for element in attributes.pop("elements", {}).values():
        dataset.add(element)
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    for keyword, value in attributes.items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PixelData = pixels.tobytes()
    return dataset


@pytest.fixture
def write_slice(tmp_path: Path) -> WriteSlice:
    """Write one slice into `tmp_path` / `scan`; the name says nothing about the order."""

    def write(index: int, name: str | None = None, **changes: Any) -> Path:
        path = tmp_path / "scan" / (name or f"{(index * 7919) % 1000:03d}")
        path.parent.mkdir(parents=True, exist_ok=True)
        pydicom.dcmwrite(path, slice_dataset(index, **changes), enforce_file_format=True)
        return path

    return write


@pytest.fixture
def phantom(write_slice: WriteSlice) -> Path:
    """Nine regular slices."""
    for index in range(9):
        path = write_slice(index)
    return path.parent


@pytest.fixture
def shared_data() -> Path:
    """Real scans beside the repository, where a developer has them."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real scans in ../shared/data are not on this machine")
    return SHARED_DATA


MAX_BYTES_A_PROCESS = 10**9


@pytest.fixture
def bounded_memory() -> Iterator[None]:
    """Fails a test whose work takes this process past MAX_BYTES_A_PROCESS of its own.

    What earlier tests left resident does not count; codec processes are bounded by RLIMIT_AS.
    """
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew: proc(5)
    before = _resident_bytes("VmRSS")
    yield
    grown = _resident_bytes("VmHWM") - before
    assert grown < MAX_BYTES_A_PROCESS, f"{grown / 1e9:.2f} GB"


def _resident_bytes(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) * 1024


@pytest.fixture
def grown_memory() -> Callable[[], int]:
    """Bytes by which the peak of this process exceeds what it held at the call before."""
    held = 0

    def measure() -> int:
        nonlocal held
        grown = _resident_bytes("VmHWM") - held
        Path("/proc/self/clear_refs").write_text("5")
        held = _resident_bytes("VmRSS")
        return grown

    return measure
