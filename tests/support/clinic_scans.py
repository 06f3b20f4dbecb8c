"""Phantom studies for tests of the clinic: small DICOM files that the demo engine has grounds to read."""

from functools import cache
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import FileDataset

from edge_medgemma.calibration.phantoms.dicom import write_dicom_series
from edge_medgemma.calibration.phantoms.drawing import draw_phantom
from edge_medgemma.runtime.clinic.settings import ClinicSettings, Node, Site
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.store import Worklist

BLEED = frozenset({"intracranial_haemorrhage"})

DEMONSTRATION = ClinicSettings(site=Site(demonstration=True), node=Node(reserve_gb=0))


@cache
def phantom(folder: Path, *, has_bleed: bool = False) -> tuple[Path, ...]:
    """Files of a phantom's study in `folder`, by position."""
    scan = folder / f"phantom-{has_bleed}"
    findings = BLEED if has_bleed else frozenset()
    write_dicom_series(draw_phantom(3_000_002 if has_bleed else 3_000_001, findings=findings), scan)
    return tuple(sorted(scan.rglob("*.dcm"), key=_position))


def spool(state: StateFolder, worklist: Worklist, files: tuple[Path, ...], study_uid: str) -> str:
    """Receive files as a study of that UID and ask for a look; its key."""
    key = state.study_key(study_uid)
    folder = state.spool / key
    folder.mkdir(exist_ok=True)
    for number, path in enumerate(files):
        dataset = renamed(path, study_uid)
        dataset.save_as(folder / f"{len(list(folder.iterdir()))}-{number}.dcm")
    worklist.note_arrivals(key, study_uid, "CT1", len(files))
    worklist.set_waiting(key)
    return key


def renamed(path: Path, study_uid: str) -> FileDataset:
    """A file as one of another study."""
    dataset = dcmread(path)
    dataset.StudyInstanceUID = study_uid
    dataset.SeriesInstanceUID = f"{study_uid}.1"
    dataset.SOPInstanceUID = f"{study_uid}.1.{dataset.InstanceNumber}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def _position(path: Path) -> float:
    return float(dcmread(path, stop_before_pixels=True).ImagePositionPatient[2])
