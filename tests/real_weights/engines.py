"""Engines of the real weights, the fixed text, and what an engine says of it."""

from pathlib import Path

import numpy as np
from click.testing import CliRunner
from numpy.typing import NDArray

from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prompt import Chunk

TEXT = Path(__file__).with_name("medical_text.txt")
BLOCK_SIZE = 64
"""Of engines in float, where it says nothing."""


def export(checkpoint: Path, folder: Path, precision: str, *options: str) -> Path:
    """Run `edge-medgemma export` for a CPU, whatever the engine loses, and return its folder."""
    arguments = ["export", str(checkpoint), "-o", str(folder), "--precision", precision, *options]
    if precision in ("int8", "int4"):
        arguments.append("--force")
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
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
