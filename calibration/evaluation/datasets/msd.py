"""Medical Segmentation Decathlon and what is laid out like it: volumes with a mask of each.

`dataset.json` names the classes and the pairs of `imagesTr` and `labelsTr`; a finding is present where
the mask has a voxel of its class. Antonelli et al., Nature Communications 2022;13:4128.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.evaluation.datasets.collect import RowCollector, counted, known_codes
from edge_medgemma.calibration.evaluation.datasets.csv_table import shown
from edge_medgemma.calibration.evaluation.datasets.layout import DatasetLayout, LabelRequest
from edge_medgemma.calibration.evaluation.records import Labels
from edge_medgemma.runtime.errors import LabelError
from edge_medgemma.runtime.slicing.files.limits import MAX_NIFTI_BYTES
from edge_medgemma.runtime.slicing.volume import Modality

INDEX = "dataset.json"
IMAGES = "imagesTr"
MAX_INDEX_BYTES = 16 * 1024**2


@dataclass(frozen=True, slots=True)
class Task:
    """One dataset that is known by its classes."""

    classes: frozenset[str]
    """All of them but the background, in small letters."""
    findings: Mapping[str, str]
    """Class -> finding."""
    protocol: str


_TUMOUR = ("edema", "non-enhancing tumor", "enhancing tumour")
_BLEEDS = ("edh", "iph", "ivh", "sah", "sdh")

TASKS = (
    Task(frozenset(_TUMOUR), dict.fromkeys(_TUMOUR, "intracranial_mass"), "brain_mr"),
    Task(frozenset(("liver", "cancer")), {"cancer": "liver_lesion"}, "abdomen_ct"),
    Task(frozenset(("cancer",)), {"cancer": "lung_nodule_or_mass"}, "chest_ct"),
    Task(frozenset(("vessel", "tumour")), {"tumour": "liver_lesion"}, "abdomen_ct"),
    Task(frozenset(_BLEEDS), dict.fromkeys(_BLEEDS, "intracranial_haemorrhage"), "head_ct"),
)
"""Tasks 1, 3, 6 and 8 of the decathlon, and the bleeds of BHSD (Wu et al., MLMI 2023). What the others
mark (organs, cancer of pancreas and colon) no built-in protocol asks for."""

MODALITIES = {"CT": Modality.CT, "MR": Modality.MR, "MRI": Modality.MR, "FLAIR": Modality.MR}
"""Words of the first channel."""


def read_labels(request: LabelRequest) -> Labels:
    """One row a volume of the training part; the test part has no masks.

    Raises:
        LabelError: no index, no class that is a finding, or a mask that cannot be read.
    """
    folder, index = _index(request.path)
    classes = _classes(folder, index)
    findings = _findings(classes.values(), request.own_codes)
    if not findings:
        raise LabelError(
            f"'{folder / INDEX}' has the classes {shown(classes.values())}, none of which stands for "
            "a finding; name classes by the codes of a protocol"
        )
    digest = hashlib.sha256((folder / INDEX).read_bytes())
    collector, empty = RowCollector(), 0
    for pair in _pairs(folder, index):
        mask = _inside(folder, pair["label"])
        found = _present(mask, classes)
        empty += not found
        with mask.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        collector.add(
            Path(pair["image"]).name,
            {
                code: any(name in found for name, own in findings.items() if own == code)
                for code in dict.fromkeys(findings.values())
            },
        )
    rows = collector.rows()
    unused = [name for name in classes.values() if name.lower() not in findings]
    notes = [f"{counted(len(rows), 'volume')}, {empty} of them without a marked voxel"]
    notes += [f"classes without a finding of ours: {shown(unused)}"] if unused else []
    codes = tuple(dict.fromkeys(findings.values()))
    return Labels("msd", rows, codes, digest.hexdigest(), (*notes, *collector.notes()))


def layout_of(path: Path, layout: DatasetLayout) -> DatasetLayout:
    """The layout with protocol and modality as the index and its classes tell them.

    Raises:
        LabelError: no index.
    """
    folder, index = _index(path)
    names = frozenset(name.lower() for name in _classes(folder, index).values())
    channels = index.get("modality", index.get("channel_names", {}))
    first = str(channels.get("0", "")) if isinstance(channels, dict) else ""
    protocol = next((task.protocol for task in TASKS if task.classes == names), "")
    return replace(layout, protocol=protocol, modality=MODALITIES.get(first.upper()))


def scan_folder(folder: Path) -> Path:
    """The folder of images; masks lie beside it."""
    return folder / IMAGES if (folder / IMAGES).is_dir() else folder


def _findings(classes: Any, own_codes: Any) -> dict[str, str]:
    """Class in small letters -> finding: of a known task, or the class itself where it is a code."""
    names = [name.lower() for name in classes]
    for task in TASKS:
        if task.classes == frozenset(names):
            return dict(task.findings)
    codes = {*known_codes(), *own_codes}
    return {name: name for name in names if name in codes}


def _index(path: Path) -> tuple[Path, dict[str, Any]]:
    """Folder of the dataset, and its index."""
    folder = path if path.is_dir() else path.parent
    if path.is_dir() and not (path / INDEX).is_file() and (path.parent / INDEX).is_file():
        folder = path.parent  # SCANS is the folder of images
    file = folder / INDEX
    try:
        if file.stat().st_size > MAX_INDEX_BYTES:
            raise LabelError(f"'{file}' is larger than {MAX_INDEX_BYTES} bytes; no index is")
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise LabelError(f"cannot read '{file}': {error.strerror or error}") from error
    except ValueError as error:
        raise LabelError(f"'{file}' is no JSON: {error}; download it again") from error
    if not isinstance(content, dict):
        raise LabelError(f"'{file}' is no JSON object; expected one with 'labels' and 'training'")
    return folder, content


def _classes(folder: Path, index: dict[str, Any]) -> dict[int, str]:
    """Value in the masks -> class, without the background; nnU-Net writes it the other way round."""
    labels = index.get("labels")
    classes: dict[int, str] = {}
    for one, other in labels.items() if isinstance(labels, dict) else ():
        value, name = (other, one) if isinstance(other, int) else (one, other)
        if str(value).isdecimal() and isinstance(name, str):
            classes[int(value)] = name
    classes.pop(0, None)
    if not classes:
        raise LabelError(f"'{folder / INDEX}' names no class: expected 'labels': {{\"1\": NAME}}")
    return classes


def _pairs(folder: Path, index: dict[str, Any]) -> Sequence[Mapping[str, str]]:
    pairs = index.get("training")
    is_usable = isinstance(pairs, list) and all(
        isinstance(pair, dict)
        and isinstance(pair.get("image"), str)
        and isinstance(pair.get("label"), str)
        for pair in pairs
    )
    if not pairs or not is_usable:
        raise LabelError(
            f"'{folder / INDEX}' lists no pairs of image and label under 'training'; expected some"
        )
    checked: Sequence[Mapping[str, str]] = pairs
    return checked


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise LabelError(f"'{folder / INDEX}' names a mask outside its folder; expected one inside")
    return path


def _present(mask: Path, classes: Mapping[int, str]) -> frozenset[str]:
    """Classes, in small letters, of which the mask has a voxel."""
    values = _mask_values(mask)
    return frozenset(name.lower() for value, name in classes.items() if (values == value).any())


def _mask_values(mask: Path) -> NDArray[np.generic]:
    try:
        image = nibabel.load(mask, mmap=False)
        if math.prod(image.shape) * image.get_data_dtype().itemsize > MAX_NIFTI_BYTES:
            raise LabelError(f"mask '{mask}' is too large to read")
        slope, intercept = image.dataobj.slope, image.dataobj.inter
        stored: NDArray[np.generic] = image.dataobj.get_unscaled()
    except LabelError:
        raise
    # nibabel raises errors of many kinds on a damaged or missing file
    except Exception as error:
        raise LabelError(f"mask '{mask}' cannot be read as NIfTI; download it again") from error
    if (slope, intercept) != (1, 0):
        return np.asarray(stored.astype(np.float32) * np.float32(slope) + np.float32(intercept))
    return stored


LAYOUT = DatasetLayout("msd", read_labels, scan_folder=scan_folder)
