"""What a decoder on the CPU says to drawn embeddings."""

from pathlib import Path

import numpy as np

from edge_medgemma.runtime.backends.ort_decoder import OrtDecoder
from edge_medgemma.runtime.manifest import Manifest


def decoder_logits(directory: Path, manifest: Manifest, *, is_packed: bool) -> np.ndarray:
    """[8, vocabulary] after eight tokens that all see each other."""
    decoder = OrtDecoder(directory, manifest, 1, is_packed=is_packed)
    caches = decoder.new_caches()
    for lane in ("global", "local"):
        caches.reserve(lane, 8, 0)
    embeddings = np.random.default_rng(0).standard_normal((8, manifest.text.hidden_size))
    mask = np.zeros((1, 1, 8, 8), np.float32)
    return decoder.run(
        caches, embeddings.astype(np.float32), np.arange(8), mask, mask, np.arange(8)
    )
