"""Files that are no scan of a kind that is read are named as what they are, with what to do."""

import gzip
import lzma
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest

from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError, sniff
from edge_medgemma.runtime.slicing.files.kinds import ISO_MAGIC_OFFSET
from edge_medgemma.runtime.slicing.scan import find_series

NIFTI_PAIR = "unsupported: NIfTI pair (.hdr and .img); convert it to one file (.nii)"
CONVERT = "; give the DICOM images, or convert it to NIfTI"


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (lzma.compress(b"a tar"), "xz archive; unpack it first"),
        (b"BZh91AY&SY", "bzip2 archive; unpack it first"),
        (b"7z\xbc\xaf\x27\x1c\0\x04", "7-Zip archive; unpack it first"),
        (b"Rar!\x1a\x07\x01\0", "RAR archive; unpack it first"),
        (b"\x28\xb5\x2f\xfd\x24", "zstd archive; unpack it first"),
        (bytes(ISO_MAGIC_OFFSET) + b"CD001", "image of a disc (ISO 9660); mount or unpack it first"),
        (b"NRRD0005\ntype: short\n", "NRRD volume" + CONVERT),
        (b"ObjectType = Image\nNDims = 3\n", "MetaImage volume (.mha, .mhd)" + CONVERT),
        (b"CDF\x01", "MINC or other netCDF volume" + CONVERT),
        (b"\x89HDF\r\n\x1a\n", "MINC 2 or other HDF5 volume" + CONVERT),
        (struct.pack("<i", 348) + bytes(344), "Analyze 7.5 header (.hdr)" + CONVERT),
        (b"%PDF-1.7", "PDF document, not a scan; give the DICOM images"),
        (b"\x89PNG\r\n\x1a\n", "PNG or JPEG image, not a scan; give the DICOM images"),
        (b"II*\0", "TIFF image, not a scan; give the DICOM images"),
        (gzip.compress(b"NRRD0005", mtime=0), "gzip file; within it: NRRD volume" + CONVERT),
        (gzip.compress(b"", mtime=0), "damaged or empty gzip file"),
        # a gzip whose name takes all that is looked at
        (b"\x1f\x8b\x08\x08\0\0\0\0\0\0" + b"a" * 200_000, "damaged or empty gzip file"),
        (b"anything", "neither DICOM nor NIfTI by its content"),
    ],
)  # fmt: skip
def test_a_file_is_named_by_its_content(tmp_path: Path, start: bytes, reason: str) -> None:
    path = tmp_path / "file.dcm"
    path.write_bytes(start)
    with pytest.raises(UnreadableFileError) as refusal:
        sniff(path)
    assert str(refusal.value) == reason


@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.Nifti2Pair])
def test_both_files_of_a_nifti_pair_are_named(phantom: Path, kind: type) -> None:
    values = np.arange(6 * 7 * 8, dtype=np.int16).reshape(6, 7, 8) + 17_000
    nibabel.save(kind(values, np.eye(4)), phantom / "a.img")
    found = {file.path: file.reason for file in find_series(phantom).skipped}
    assert found == {"a.hdr": NIFTI_PAIR, "a.img": NIFTI_PAIR}
