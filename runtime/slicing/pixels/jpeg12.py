"""JPEG Extended of 12 bits (1.2.840.10008.1.2.4.51), which pydicom leaves undecoded.

GDCM carries a 12-bit build of the IJG library; pydicom keeps it from these images for the sake of
signed and of 8-bit-coded ones, so those are refused here as well.
"""

from typing import BinaryIO, cast

import gdcm  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame

from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError

FRAME_HEADER = b"\xff\xc1\x00\x0b\x0c"
"""SOF1 (extended sequential) of one component, 11 bytes long, with a precision of 12 bits."""


def decode_jpeg12(dataset: Dataset, source: BinaryIO, frame: int) -> NDArray[np.uint16]:
    """Stored values [rows, columns] of one frame; `source` is at the pixel data.

    Raises:
        UnreadableFileError: signed, not of 12 bits, of another size than the header says, damaged.
    """
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    frames = int(dataset.get("NumberOfFrames") or 1)
    encoded = get_frame(source, frame, number_of_frames=frames)
    header = encoded.find(FRAME_HEADER)
    size = rows.to_bytes(2, "big") + columns.to_bytes(2, "big")
    is_signed = int(dataset.PixelRepresentation) == 1
    if is_signed or header < 0 or encoded[header + 5 : header + 9] != size:
        raise UnreadableFileError("JPEG Extended other than unsigned 12 bits; re-export the images")
    image = _image(encoded, rows, columns)
    if image.GetBufferLength() != 2 * rows * columns:
        raise UnreadableFileError("damaged JPEG Extended pixels")
    buffer = cast(str, image.GetBuffer()).encode("utf-8", "surrogateescape")
    if len(buffer) != 2 * rows * columns:
        raise UnreadableFileError("damaged JPEG Extended pixels")
    return np.frombuffer(buffer, dtype="<u2").reshape(rows, columns)


def _image(encoded: bytes, rows: int, columns: int) -> gdcm.Image:
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(encoded)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2)
    )
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, 0))
    return image
