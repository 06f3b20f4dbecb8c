"""No codec runs in the process that reads a scan: without any there, all encodings are read."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2KLossless, JPEG2000Lossless, JPEGLSLossless, RLELossless

from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.pixels.pixel_data import decode_native, decode_slices
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.volume import Modality

WriteSlice = Callable[..., Path]

JPEG_LOSSLESS_SLICE = Path(__file__).resolve().parents[3] / "data/ct_head/14.dcm"

READ_WITHOUT_CODECS = """
import sys
from pathlib import Path
for name in ("gdcm", "_gdcm", "pylibjpeg", "openjpeg", "_openjpeg", "jpeg_ls", "PIL"):
    sys.modules[name] = None  # importing it fails
import numpy as np
import pydicom.pixels.decoders.rle as rle
rle._rle_decode_frame = rle._rle_decode_segment = None
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
(series,) = find_series(Path(sys.argv[1])).series
np.save(sys.argv[2], read_volume(series).array)
"""
"""The codec processes that it starts import what they need."""


def without_preamble(path: Path) -> None:
    path.write_bytes(path.read_bytes()[132:])


@pytest.mark.parametrize("has_preamble", [True, False], ids=["preamble", "no preamble"])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless, None])
def test_every_codec_runs_in_its_own_process(
    write_slice: WriteSlice, tmp_path: Path, syntax: str | None, has_preamble: bool
) -> None:
    ramp = np.add.outer(np.arange(64), 7 * np.arange(64)).astype(np.int16)
    path = write_slice(4, pixels=ramp)
    if syntax is None:
        path.write_bytes(JPEG_LOSSLESS_SLICE.read_bytes())
    else:
        dataset = pydicom.dcmread(path)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path, enforce_file_format=True)
    if not has_preamble:
        without_preamble(path)
    read = tmp_path / "read.npy"
    subprocess.run([sys.executable, "-c", READ_WITHOUT_CODECS, path, read], check=True)
    np.testing.assert_array_equal(np.load(read), decode_slices(path, [0], Modality.CT).values)
    assert decode_native(path, [0], Modality.CT) is None


def test_a_syntax_that_nobody_decodes_is_named(write_slice: WriteSlice) -> None:
    path = write_slice(4)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = HTJ2KLossless
    dataset.PixelData = encapsulate([bytes(64)])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    known = path.read_bytes()
    for syntax, name in (
        ("1.2.840.10008.1.2.4.110", "JPEG XL Lossless"),
        ("1.2.840.10008.1.2.4.112", "JPEG XL"),
        ("1.2.840.10008.1.9.9.999", "not in the standard"),
    ):
        path.write_bytes(known.replace(HTJ2KLossless.encode(), syntax.encode()))
        with pytest.raises(ScanError, match=rf"unsupported transfer syntax \({name}\)"):
            read_volume(find_series(path).series[0])
