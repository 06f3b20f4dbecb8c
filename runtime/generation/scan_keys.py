"""Names of what the scan cache keeps: hashes of all that the contents depend on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.generation.prompt import Chunk
from edge_medgemma.runtime.store.keys import hashed_key, program_identity


def features_key(vision_identity: str, preset: str, pixels: NDArray[np.uint8]) -> str:
    """Key of the image features of one slice.

    Args:
        vision_identity: of the engine and of what runs its tower (`Engine.vision_identity`):
            features of another library or precision differ in the last bits.
        preset: of intensities.
        pixels: [rows, columns, 3] of the slice.
    """
    shape = repr(pixels.shape)
    return hashed_key(
        "features", program_identity(), vision_identity, preset, shape, pixels.tobytes()
    )


def prefix_key(decoder_identity: str, chunks: Sequence[Chunk], features_keys: Sequence[str]) -> str:
    """Key of a prefix.

    Args:
        decoder_identity: `Engine.decoder_identity`.
        chunks: token ids in the very chunks they are read in.
        features_keys: of each image, in order.
    """
    read = repr([(chunk.ids, chunk.images) for chunk in chunks])
    return hashed_key("prefix", program_identity(), decoder_identity, read, *features_keys)
