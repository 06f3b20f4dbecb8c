"""A phantom as a CT series, one file per slice, as a scanner would send it."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from edge_medgemma.calibration.phantoms.drawing import Phantom

RESCALE_INTERCEPT = -1024
"""Stored values are Hounsfield units less this, from 0 (PS3.3 C.8.2.1)."""
BITS_STORED = 12


def write_dicom_series(phantom: Phantom, folder: Path) -> tuple[Path, ...]:
    """Write every slice of `phantom` to `folder`, which is made if need be.

    The unique identifiers follow from the seed and the slice: the same phantom is the same study.

    Returns:
        The paths, in the order of the slices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(len(phantom.hounsfield)):
        path = folder / f"slice_{index:03}.dcm"
        slice_dataset(phantom, index).save_as(path, enforce_file_format=True)
        paths.append(path)
    return tuple(paths)


def slice_dataset(phantom: Phantom, index: int) -> FileDataset:
    """One slice as a CT image object, not yet written."""
    identity = f"phantom {phantom.seed} {phantom.hounsfield.shape} {sorted(phantom.findings)}"
    identity += phantom.background
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[identity, f"slice {index}"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_ = FileDataset(None, Dataset(), file_meta=meta, preamble=b"\0" * 128)
    slice_.SOPClassUID = CTImageStorage
    slice_.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    slice_.StudyInstanceUID = generate_uid(entropy_srcs=[identity, "study"])
    slice_.SeriesInstanceUID = generate_uid(entropy_srcs=[identity, "series"])
    slice_.FrameOfReferenceUID = generate_uid(entropy_srcs=[identity, "frame of reference"])
    slice_.Modality = "CT"
    slice_.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    slice_.PatientName = "PHANTOM"
    slice_.PatientID = "PHANTOM"
    slice_.BodyPartExamined = "HEAD"
    slice_.SeriesNumber = 1
    slice_.AcquisitionNumber = 1
    slice_.InstanceNumber = index + 1
    _set_geometry(slice_, phantom, index)
    _set_pixels(slice_, phantom, index)
    return slice_


def _set_geometry(slice_: Dataset, phantom: Phantom, index: int) -> None:
    """Image plane module, PS3.3 C.7.6.2."""
    affine = phantom.affine_lps_mm
    slice_mm, row_mm, column_mm = phantom.spacing_mm
    position = affine @ [phantom.slice_indices[index], 0, 0, 1]
    along_row, along_column = affine[:3, 2] / column_mm, affine[:3, 1] / row_mm
    slice_.ImagePositionPatient = [f"{value:.6f}" for value in position[:3]]
    slice_.ImageOrientationPatient = [f"{value:.9f}" for value in (*along_row, *along_column)]
    slice_.PixelSpacing = [f"{row_mm:.9f}", f"{column_mm:.9f}"]
    slice_.SliceThickness = f"{slice_mm:g}"


def _set_pixels(slice_: Dataset, phantom: Phantom, index: int) -> None:
    stored = np.round(phantom.hounsfield[index] - RESCALE_INTERCEPT)
    pixels = np.clip(stored, 0, 2**BITS_STORED - 1).astype("<u2")
    slice_.Rows, slice_.Columns = pixels.shape
    slice_.SamplesPerPixel = 1
    slice_.PhotometricInterpretation = "MONOCHROME2"
    slice_.BitsAllocated = 16
    slice_.BitsStored = BITS_STORED
    slice_.HighBit = BITS_STORED - 1
    slice_.PixelRepresentation = 0
    slice_.RescaleIntercept = str(RESCALE_INTERCEPT)
    slice_.RescaleSlope = "1"
    slice_.RescaleType = "HU"
    slice_.WindowCenter, slice_.WindowWidth = "40", "80"
    slice_.PixelData = pixels.tobytes()
