"""A CT to measure with: drawn, not a patient, of the size and texture that scanners write."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

ROWS = 512
EXTENT_MM = 170.0
"""Extent from the skull base upwards; slices are spread over it, however many there are."""

AIR_HU, BONE_HU, BRAIN_HU = -1000.0, 900.0, 35.0
NOISE_HU = 6.0


def write_synthetic_ct(folder: Path, slices: int, seed: int) -> Path:
    """Write an axial head CT of `slices` uncompressed 512 × 512 DICOM files; returns `folder`.

    Two seeds differ in every pixel's noise, so nothing kept for one serves the other.
    """
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    name = f"benchmark {slices} {seed}"
    study, series, frame = (generate_uid(entropy_srcs=[name, part]) for part in "abc")
    step_mm = EXTENT_MM / slices
    for index in range(slices):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[name, str(index)])
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.FrameOfReferenceUID = frame
        dataset.Modality, dataset.BodyPartExamined = "CT", "HEAD"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.InstanceNumber = index + 1
        dataset.ImagePositionPatient = [-120.0, -120.0, round(step_mm * index, 3)]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing = [240.0 / ROWS, 240.0 / ROWS]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.Rows = dataset.Columns = ROWS
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 1
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.PixelData = _head(index / slices, generator).tobytes()
        dataset.save_as(folder / f"{index:03}.dcm", enforce_file_format=True)
    return folder


def _head(height: float, generator: np.random.Generator) -> NDArray[np.int16]:
    """[512, 512] Hounsfield units at `height`, 0 (base) to 1 (vertex): brain in a shell of bone."""
    y, x = np.mgrid[-1 : 1 : ROWS * 1j, -1 : 1 : ROWS * 1j].astype(np.float32)
    scale = np.float32((1 - (0.85 * height) ** 2) ** 0.5)
    radius = np.hypot(x / (0.62 * scale), y / (0.78 * scale))
    values = np.full((ROWS, ROWS), AIR_HU, np.float32)
    values[radius < 1.0] = BONE_HU
    values[radius < 0.93] = BRAIN_HU
    values += generator.normal(0.0, NOISE_HU, values.shape).astype(np.float32)
    return values.round().astype(np.int16)
