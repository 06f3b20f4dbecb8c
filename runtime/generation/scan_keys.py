"""Names of what the scan cache keeps: hashes of all that the contents depend on."""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.generation.prompt import Chunk


def features_key(vision_identity: str, preset: str, pixels: NDArray[np.uint8]) -> str:
    """Key of the image features of one slice.

    Args:
        vision_identity: of the engine and of what runs its tower (`Engine.vision_identity`):
            features of another library or precision differ in the last bits.
        preset: of intensities.
        pixels: [rows, columns, 3] of the slice.
    """
    shape = repr(pixels.shape)
    return _hash("features", code_sha256(), vision_identity, preset, shape, pixels.tobytes())


def prefix_key(decoder_identity: str, chunks: Sequence[Chunk], features_keys: Sequence[str]) -> str:
    """Key of a prefix.

    Args:
        decoder_identity: `Engine.decoder_identity`.
        chunks: token ids in the very chunks they are read in.
        features_keys: of each image, in order.
    """
    read = repr([(chunk.ids, chunk.images) for chunk in chunks])
    return _hash("prefix", code_sha256(), decoder_identity, read, *features_keys)


@cache
def code_sha256() -> str:
    """Hash of the program's own files that compute features, keys and values.

    What a program computed before it was corrected must not be taken for what it computes now.
    """
    runtime = Path(__file__).parents[1]
    files = [
        path
        for folder in ("backends", "generation", "kernels")
        for path in sorted((runtime / folder).rglob("*"))
        if path.suffix in (".py", ".c", ".h")
    ]
    names = (str(path.relative_to(runtime)) for path in files)
    return _hash(*(part for name in names for part in (name, (runtime / name).read_bytes())))


def _hash(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))  # no two lists of parts run together
        digest.update(data)
    return digest.hexdigest()
