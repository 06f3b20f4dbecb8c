"""Engines of the real weights, the fixed text, and what an engine says of it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.engine import export_engine
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prompt import Chunk

TEXT = Path(__file__).with_name("medical_text.txt")
BLOCK_SIZE = 128
"""The default of `export`."""


def export(checkpoint: Path, folder: Path, precision: str, block_size: int = BLOCK_SIZE) -> Path:
    """Export an engine to `folder`, as `edge-medgemma export` does for a CPU, and return it."""
    source = open_checkpoint(str(checkpoint))
    export_engine(source, folder, precision=precision, block_size=block_size)
    return folder


def text_ids(engine: Engine) -> NDArray[np.int64]:
    """The fixed text behind the token that begins a sequence."""
    text = TEXT.read_text(encoding="utf-8").strip()
    return np.array([engine.manifest.tokens.bos, *engine.tokenizer.encode(text)], np.int64)


def logits_of(engine: Engine, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logits after every token, [tokens, vocabulary], read one by one as an answer is decoded."""
    prefix = engine.new_prefix(len(ids))
    found = np.empty((len(ids), engine.manifest.text.vocabulary), np.float32)
    for row, token in enumerate(ids):
        found[row] = prefix.extend(Chunk((int(token),), 0))
    return found
