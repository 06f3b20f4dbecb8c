"""What every adapter of a dataset says of itself."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_medgemma.calibration.evaluation.records import Labels
from edge_medgemma.runtime.slicing.volume import Modality, View

DEFAULT_REFERENCE = "majority"


def same_name(name: str) -> str:
    """The name as it is."""
    return name


def same_folder(folder: Path) -> Path:
    """The folder as it is."""
    return folder


_VIEWS = {"PA": View.PA, "AP": View.AP, "L": View.LATERAL, "LL": View.LATERAL,
          "LATERAL": View.LATERAL, "FRONTAL": View.FRONTAL}  # fmt: skip


def stated_view(name: str, attributes: Mapping[str, str]) -> View:
    """The projection that the table states."""
    return _VIEWS.get(attributes.get("view", "").upper(), View.UNKNOWN)


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """What is asked of an adapter."""

    path: Path
    """Table, or folder that holds it."""
    reference: str = DEFAULT_REFERENCE
    """`majority`, `any` or `reader:NAME`: which of several readers is believed."""
    own_codes: Collection[str] = ()
    """Finding codes of the user's own protocol, beside those of the built-in ones."""


@dataclass(frozen=True, slots=True)
class DatasetLayout:
    """How one public dataset lies on disk."""

    name: str
    read_labels: Callable[[LabelRequest], Labels]
    protocol: str = ""
    """Built-in protocol for series that do not say their body part; empty where nothing is known."""
    modality: Modality | None = None
    """Of NIfTI files, which do not say it."""
    has_pictures: bool = False
    """Whether its scans are PNG or JPEG radiographs."""
    readers: tuple[str, ...] = ()
    """Who read each study, where the table tells them apart."""
    has_slice_rows: bool = False
    """Whether a row of the table speaks of one slice: a study has a finding that any slice has."""
    name_of: Callable[[str], str] = same_name
    """Brings names of the table and of the disk, which may differ, into one form."""
    scan_folder: Callable[[Path], Path] = same_folder
    """The part of the dataset's folder that holds the scans."""
    study_of: Callable[[str], str] = same_name
    """Path of a picture below the dataset's folder -> name of its examination."""
    view_of: Callable[[str, Mapping[str, str]], View] = stated_view
    """Path of a picture and attributes of its label row -> projection."""
