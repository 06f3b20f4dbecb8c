"""Plans on disk: `devices/tensorrt/` of an engine directory, used only where they were built."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from edge_medgemma.runtime.backends.cuda.device import Device
from edge_medgemma.runtime.backends.tensorrt.library import TensorRt
from edge_medgemma.runtime.backends.tensorrt.shapes import DecoderShapes, VisionShapes
from edge_medgemma.runtime.documents import Count, Sha256, dump_sealed, parse_sealed
from edge_medgemma.runtime.errors import EngineError, ProviderError
from edge_medgemma.runtime.files import write_atomically, write_errors
from edge_medgemma.runtime.manifest import FileRecord, Manifest, verify_file
from edge_medgemma.runtime.store.places import device_folder

RECORD_NAME = "record.json"

VISION_PLAN = "vision.plan"
DECODER_PLAN = "decoder.plan"
TIMING_CACHE = "timing.cache"


@dataclass(frozen=True, slots=True)
class Place:
    """Library, device and engine that a plan was built for: TensorRT opens it nowhere else."""

    library: str
    library_version: str
    device: str
    compute_capability: str
    driver_version: int
    engine_sha256: Sha256


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """Place, shapes and files of plans; stands beside them."""

    place: Place
    global_rows: Count
    local_rows: Count
    prefill_rows: Count
    logit_rows: Count
    has_decode_profile: bool
    batches: tuple[Count, ...]
    files: Mapping[str, FileRecord]

    @property
    def identity(self) -> str:
        """Identity of these plans at their place: a builder chooses other kernels each time."""
        place, plans = self.place, "".join(file.sha256 for file in self.files.values())
        sha256 = hashlib.sha256(plans.encode()).hexdigest()
        return (
            f"{place.library} {place.library_version} {place.device} {place.compute_capability} "
            f"driver {place.driver_version} plans {sha256}"
        )

    @property
    def decoder_shapes(self) -> DecoderShapes:
        """Shapes of decoder.plan."""
        return DecoderShapes(
            self.global_rows,
            self.local_rows,
            self.prefill_rows,
            self.logit_rows,
            self.has_decode_profile,
        )

    @property
    def vision_shapes(self) -> VisionShapes:
        """Shapes of vision.plan."""
        return VisionShapes(self.batches)


def plan_folder(directory: Path) -> Path:
    """Folder of an engine directory's plans."""
    return device_folder(directory) / "tensorrt"


def current_place(library: TensorRt, device: Device, manifest: Manifest) -> Place:
    """This library on this device with this engine."""
    found = device.properties()
    return Place(
        library.name,
        library.version,
        found.name,
        "{}.{}".format(*found.compute_capability),
        found.driver_version,
        manifest.sha256,
    )


def read_record(directory: Path, place: Place, *, contents: bool = True) -> PlanRecord:
    """The record of plans that were built for this very place and are whole.

    Without `contents` only their sizes are looked at.

    Raises:
        ProviderError: there is none, or it was built elsewhere; says what differs.
        EngineError: a plan was cut short or altered.
    """
    folder = plan_folder(directory)
    path = folder / RECORD_NAME
    command = f"run 'edge-medgemma build {directory}'"
    if not path.is_file():
        raise ProviderError(f"'{directory}' has no TensorRT plans for this device; {command}")
    try:
        record = parse_sealed(path.read_bytes(), PlanRecord)
    except (OSError, ValueError, RecursionError) as error:
        raise ProviderError(f"'{path}' is not a record of plans ({error}); {command}") from None
    for field in fields(Place):
        built, here = getattr(record.place, field.name), getattr(place, field.name)
        if built != here:
            name = field.name.replace("_", " ")
            raise ProviderError(
                f"the TensorRT plans were built for {name} {built}, here it is {here}; {command}"
            )
    for name, file in record.files.items():
        verify_file(folder, name, file, contents=contents)
    return record


def write_plans(
    directory: Path, record: PlanRecord, contents: Mapping[str, bytes | memoryview]
) -> PlanRecord:
    """Write the plans, then the record that makes them valid; returns it with sizes and hashes.

    Raises:
        ResourceError: no space or no permission; without a record no plan is used.
    """
    folder = plan_folder(directory)
    with write_errors(folder):
        (folder / RECORD_NAME).unlink(missing_ok=True)
    for name, data in contents.items():
        write_atomically(folder / name, data)
    files = {
        name: FileRecord(memoryview(data).nbytes, hashlib.sha256(data).hexdigest())
        for name, data in contents.items()
    }
    complete = replace(record, files=files)
    write_atomically(folder / RECORD_NAME, dump_sealed(complete).encode())
    return complete


def read_timing_cache(directory: Path) -> bytes:
    """Timings of an earlier build, whatever it was built for; empty where they are not as written."""
    folder = plan_folder(directory)
    try:
        record = parse_sealed((folder / RECORD_NAME).read_bytes(), PlanRecord)
        verify_file(folder, TIMING_CACHE, record.files[TIMING_CACHE])
        return (folder / TIMING_CACHE).read_bytes()
    except (OSError, ValueError, KeyError, RecursionError):
        return b""


def read_plan(directory: Path, name: str) -> bytes:
    """One plan's bytes.

    Raises:
        EngineError: it is gone.
    """
    try:
        return (plan_folder(directory) / name).read_bytes()
    except OSError as error:
        raise EngineError(f"'{name}' cannot be read ({error.strerror}); build it again") from None
