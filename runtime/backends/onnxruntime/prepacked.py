"""Weights in the order this processor reads them, packed once and mapped from then on.

onnxruntime rearranges the weights at every start, into memory of its own. With
`save_external_prepacked_constant_initializers` it writes them to a file instead, which later starts
map: they load in half the time, and their pages belong to the file system, which may take them
back and shares them between processes. The file holds the original weights too, which onnxruntime
compares with; so it is more than twice as large as the engine's. It is worth nothing on another
processor or with another onnxruntime.
"""

import contextlib
import hashlib
import json
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import platformdirs

from edge_medgemma.runtime.errors import EdgeMedgemmaError
from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.manifest import Manifest

LOG = logging.getLogger(__name__)

MINIMUM_BYTES = 256 * 2**20
"""Decoders up to this size load in half a second as they are."""

GROWTH = 2.4
"""Bytes of the packed file for a byte of the engine's; 2.30 was measured for int4 in blocks of 128."""

SPARE_BYTES = 2 * 2**30
"""Left free on the disk."""

GRAPH_NAME = "decoder.onnx"
DATA_NAME = "decoder.data"
RECORD_NAME = "record.json"

NEW = "there are none yet"

Save = Callable[[Path], None]
"""Writes the packed graph to a path, its weights to DATA_NAME beside it."""


def prepacked_decoder(directory: Path, manifest: Manifest, save: Save) -> Path:
    """The decoder graph to open: the packed one, made now where it is missing, or the engine's own.

    Whatever is in the way (no room, no permission, another process at work) costs loading time only.

    Args:
        directory: of the engine, whose files were checked against `manifest`
        manifest: of the engine
        save: called with the path of the packed graph, in a folder that exists
    """
    original = directory / GRAPH_NAME
    size = sum(r.bytes for name, r in manifest.files.items() if name in _weights(manifest))
    if size < MINIMUM_BYTES:
        return original
    identity = _identity(manifest)
    for root in _places(directory, manifest):
        folder = root / f"onnxruntime-{_digest(identity['processor'])}"
        reason = _why_not(folder, identity)
        if reason is None:
            return folder / GRAPH_NAME
        if not _is_writable(root):
            continue
        if _build(folder, identity, save, int(size * GROWTH), reason):
            return folder / GRAPH_NAME
        break
    return original


def forget(graph: Path) -> None:
    """Remove a packed graph that did not load, so that the next start makes it again."""
    LOG.warning("packed weights did not load; they are made again at the next start")
    shutil.rmtree(graph.parent, ignore_errors=True)


def _weights(manifest: Manifest) -> set[str]:
    shared = {"embedding.data"} if manifest.precision.embedding == "head" else set()
    return {DATA_NAME} | shared


def _places(directory: Path, manifest: Manifest) -> Iterator[Path]:
    """Beside the engine or, where that is read-only, in the user's cache."""
    yield directory / "devices"
    cache = Path(platformdirs.user_cache_dir("edge-medgemma"))
    yield cache / "devices" / manifest.sha256[:16]


def _identity(manifest: Manifest) -> dict[str, str]:
    import onnxruntime

    return {
        "library": f"onnxruntime {onnxruntime.__version__}",
        "processor": _processor(),
        "engine": manifest.sha256,
    }


def _processor() -> str:
    """Model and instruction sets: what onnxruntime chooses a layout by."""
    with contextlib.suppress(OSError):
        wanted = ("model name", "flags", "CPU part", "Features")
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        return "\n".join(line for line in lines if line.startswith(wanted))
    return f"{platform.machine()} {platform.processor()}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _why_not(folder: Path, identity: Mapping[str, str]) -> str | None:
    """Why the files of a folder may not be used; None where they may."""
    try:
        record = dict(json.loads((folder / RECORD_NAME).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return NEW
    except (OSError, ValueError, TypeError):
        return "their record cannot be read"
    for key, value in identity.items():
        if record.get(key) != value:
            return f"they were made for another {key}"
    try:
        if record.get("files") != _state(folder):
            return "their files were changed or cut short"
    except OSError:
        return "a file of them is missing"
    return None


def _state(folder: Path) -> dict[str, list[int]]:
    """What changes when a file is written to or replaced."""
    state = {}
    for name in (GRAPH_NAME, DATA_NAME):
        stat = (folder / name).stat()
        state[name] = [stat.st_size, stat.st_ino, stat.st_dev, stat.st_mtime_ns, stat.st_ctime_ns]
    return state


def _is_writable(root: Path) -> bool:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return True
    except OSError:
        return False


def _build(folder: Path, identity: Mapping[str, str], save: Save, needed: int, reason: str) -> bool:
    """Make the files of `folder`; False, with a line in the log, where that was not possible."""
    root = folder.parent
    with _lock(root / f".{folder.name}.lock") as is_mine:
        if not is_mine:
            LOG.info("another process packs these weights, or none can here")
            return False
        for rest in (folder, *root.glob(f".{folder.name}.tmp*")):
            shutil.rmtree(rest, ignore_errors=True)
        free = shutil.disk_usage(root).free
        if free < needed + SPARE_BYTES:
            LOG.warning(
                "weights are not packed for faster loading: that takes %.1f GB and leaves 2 GB "
                "free, %.1f GB are free",
                needed / 1e9,
                free / 1e9,
            )
            return False
        if reason == NEW:
            LOG.info("packing weights for faster loading, once")
        else:
            LOG.warning("packing weights for faster loading again: %s", reason)
        temporary = Path(tempfile.mkdtemp(dir=root, prefix=f".{folder.name}.tmp"))
        try:
            save(temporary / GRAPH_NAME)
            _write_back(temporary)
            os.replace(temporary, folder)
            record = {**identity, "files": _state(folder)}
            write_atomically(folder / RECORD_NAME, json.dumps(record, indent=1).encode())
        except (OSError, EdgeMedgemmaError) as error:
            reason = (
                isinstance(error, OSError) and error.strerror
            ) or "onnxruntime did not write them"
            LOG.warning("weights could not be packed for faster loading: %s", reason)
            shutil.rmtree(temporary, ignore_errors=True)
            return False
    return True


def _write_back(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Whether nobody else holds it; it falls with the process."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield False
        return
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
