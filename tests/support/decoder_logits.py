"""Logits of a decoder on the CPU for random embeddings."""

from pathlib import Path

import numpy as np

from edge_medgemma.runtime.backends.onnxruntime.decoder import OrtDecoder
from edge_medgemma.runtime.manifest import Manifest


def decoder_logits(directory: Path, manifest: Manifest, tokens: int) -> np.ndarray:
    """[tokens, vocabulary] after tokens that all see each other."""
    decoder = OrtDecoder(directory, manifest, 1)
    caches = decoder.new_caches()
    for lane in ("global", "local"):
        caches.reserve(lane, tokens, 0)
    embeddings = np.random.default_rng(0).standard_normal((tokens, manifest.text.hidden_size))
    mask = np.zeros((1, 1, tokens, tokens), np.float32)
    rows = np.arange(tokens)
    return decoder.run(caches, embeddings.astype(np.float32), rows, mask, mask, rows)
