"""A multi-frame CT whose frames are not stored in the order of the body."""

from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian

FRAMES = 6


def write_enhanced(path: Path, frames: int = FRAMES) -> Dataset:
    """Frame 1 is the topmost: slice i of the series is frame `frames - i`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.1.1.1"
    dataset.SOPClassUID, dataset.SOPInstanceUID = EnhancedCTImageStorage, "1.2.3.4.1.1.1"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3.4.1", "1.2.3.4.1.1"
    dataset.FrameOfReferenceUID = "1.2.3.4.1.2"
    dataset.Modality, dataset.PatientName, dataset.PatientID = "CT", "PLANTED^NAME", "PLANTED-ID"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.BodyPartExamined = "HEAD"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames, 8, 8
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = bytes(2 * 64 * frames)
    shared = Dataset()
    measures, orientation, values = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.5], 5
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    values.RescaleIntercept, values.RescaleSlope, values.RescaleType = -1024, 1, "HU"
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([orientation])
    shared.PixelValueTransformationSequence = Sequence([values])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for frame in range(frames):
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, 5.0 * (frames - 1 - frame)]
        group.PlanePositionSequence = Sequence([position])
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    dataset.save_as(path, enforce_file_format=True)
    return dataset
