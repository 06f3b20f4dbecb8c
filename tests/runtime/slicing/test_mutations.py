"""2,000 damaged files: each read or refused with a reason, in bounded memory."""

import gzip
import random
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import gdcm  # type: ignore[import-untyped]
import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)

from edge_medgemma.runtime.slicing.dicom.headers import read_slice_headers
from edge_medgemma.runtime.slicing.files.discovery import FileKind, UnreadableFileError, sniff
from edge_medgemma.runtime.slicing.nifti import decode_nifti, read_nifti_series
from edge_medgemma.runtime.slicing.pixels.codec_process import CodecProcess
from edge_medgemma.runtime.slicing.scan import find_series, read_volume

WriteSlice = Callable[..., Path]

MUTATIONS = 2000
SEED = 20_261_123
SIDE = 64
"""Pixels each way: JPEG 2000 takes no smaller ones at its usual five resolutions."""

REASONS = re.compile(
    r"damaged|truncated|pixels cannot be decoded|unsupported transfer syntax|not a CT, MR|"
    r"neither DICOM nor NIfTI|no pixel data|no series or object UID|expected (1 to|at most)|"
    r"colour image|not a DICOM image|sequences nested|header of more than|mosaic of tiles|"
    r"inflates to more|NIfTI (that|volume|whose|without)|empty file|takes more memory|"
    r"not a scan|JPEG Extended|convert it|unpack it first|gzip file"
)
"""Every refusal is one of these sentences."""


def compressed(path: Path, syntax: str) -> bytes:
    dataset = pydicom.dcmread(path)
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path, enforce_file_format=True)
    return path.read_bytes()


def recoded(path: Path, syntax: str) -> bytes:
    dataset = pydicom.dcmread(path)
    dataset["PixelData"].VR = "OW"
    is_big = syntax == ExplicitVRBigEndian
    if is_big:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(
        path, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=not is_big
    )
    return path.read_bytes()


def jpeg_lossless(path: Path) -> bytes:
    """GDCM's pixels in the file as it was: GDCM itself writes the time of day into it."""
    dataset = pydicom.dcmread(path)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    coded = pydicom.dcmread(path)
    dataset["PixelData"] = coded["PixelData"]
    dataset.file_meta.TransferSyntaxUID = coded.file_meta.TransferSyntaxUID
    dataset.save_as(path)
    return path.read_bytes()


@pytest.fixture
def originals(write_slice: WriteSlice, tmp_path: Path) -> dict[str, bytes]:
    """Files of every encoding that is read, by name; none stays in the scan folder."""

    other_series = {"SeriesInstanceUID": "1.2.77.5", "SOPInstanceUID": "1.2.77.6"}
    ramp = np.add.outer(np.arange(SIDE), 7 * np.arange(SIDE)).astype(np.int16)

    def fresh() -> Path:
        return write_slice(4, "original", pixels=ramp, **other_series)

    files = {
        "explicit": fresh().read_bytes(),
        "implicit": recoded(fresh(), ImplicitVRLittleEndian),
        "big endian": recoded(fresh(), ExplicitVRBigEndian),
        "rle": compressed(fresh(), RLELossless),
        "jpeg-ls": compressed(fresh(), JPEGLSLossless),
        "jpeg 2000": compressed(fresh(), JPEG2000Lossless),
        "jpeg": jpeg_lossless(fresh()),
        "multi-frame": write_slice(
            4, "original", NumberOfFrames=3, pixels=np.stack([ramp] * 3), **other_series
        ).read_bytes(),
        "mr": write_slice(
            4, "original", SOPClassUID=MRImageStorage, EchoTime=20, pixels=ramp, **other_series
        ).read_bytes(),
    }
    fresh().unlink()
    values = np.arange(6 * 7 * 8, dtype=np.int16).reshape(6, 7, 8)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 1, 3, 1])), tmp_path / "a.nii")
    files["nifti"] = (tmp_path / "a.nii").read_bytes()
    files["gzipped nifti"] = gzip.compress(files["nifti"], mtime=0)
    return files


def mutated(original: bytes, generator: random.Random) -> bytes:
    """Bits flipped, the end cut off, a run overwritten, bytes put in or taken out."""
    data = bytearray(original)
    kind = generator.choice(["flip", "flip", "flip", "cut", "overwrite", "insert", "remove"])
    start = generator.randrange(min(128, len(data) // 8), len(data))
    size = generator.choice([1, 2, 4, 16, 200])
    if kind == "flip":
        for _ in range(generator.randint(1, 12)):
            data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    elif kind == "cut":
        del data[start:]
    elif kind == "overwrite":
        data[start : start + size] = generator.choice([b"\0", b"\xff", b"\x7f"]) * size
    elif kind == "insert":
        data[start:start] = generator.randbytes(size)
    else:
        del data[start : start + size]
    return bytes(data)


def read_fully(path: Path, codecs: CodecProcess) -> str:
    """`read`, or the reason it was refused for."""
    try:
        if sniff(path) is FileKind.NIFTI:
            slices = decode_nifti(path, range(read_nifti_series(path).shape[0]))
        else:
            headers = read_slice_headers(path)
            frames = [header.source.frame for header in headers]
            slices = codecs.decode(path, frames, headers[0].modality).values
    except UnreadableFileError as error:
        return str(error)
    assert np.isfinite(slices).all()
    return "read"


@pytest.mark.usefixtures("bounded_memory")
def test_every_mutation_is_read_or_refused(
    originals: dict[str, bytes], phantom: Path, codecs: CodecProcess
) -> None:
    generator = random.Random(SEED)
    names = sorted(originals)
    outcomes: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(MUTATIONS):
            name = names[number % len(names)]
            path = phantom / f"{number:04d}"
            path.write_bytes(mutated(originals[name], generator))
            outcome = read_fully(path, codecs)
            assert outcome == "read" or REASONS.search(outcome), f"{number} ({name}): {outcome}"
            outcomes[outcome.split(":")[0].split("(")[0]] += 1
    print(*outcomes.most_common(), sep="\n")
    check_the_folder(phantom)


def check_the_folder(phantom: Path) -> None:
    """The nine sound slices are still read, and every other file is accounted for."""
    listing = find_series(phantom)
    accounted = {file.path for file in listing.skipped}
    accounted |= {source.path.name for series in listing.series for source in series.sources}
    assert accounted == {path.name for path in phantom.iterdir()}
    (sound,) = [
        series
        for series in listing.series
        if series.series_uid == "1.2.3.4" and series.shape == (9, 16, 24)
    ]
    values = read_volume(sound).array[:, 8, 12]
    np.testing.assert_array_equal(values, 10 * np.arange(9))


@pytest.fixture
def codecs() -> Iterator[CodecProcess]:
    with CodecProcess() as process:
        yield process
