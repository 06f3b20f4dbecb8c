"""Which table projects onto the vocabulary: the embedding, or a head of its own.

transformers 5 goes by tie_word_embeddings at the top of config.json alone, and where that ties both
but a differing head is stored, it keeps the stored one with a warning; transformers 4 goes by
text_config's and drops the stored one. A file on which they disagree is refused.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from edge_medgemma.export.checkpoint.checkpoint import Tensor
from edge_medgemma.export.checkpoint.safetensors_file import StoredTensor, same_bytes
from edge_medgemma.export.checkpoint.tensor_names import EMBEDDING, HEAD
from edge_medgemma.runtime.errors import CheckpointError

ROWS = 4096
"""Of a table that are compared at once."""


def with_head(
    tensors: Mapping[str, StoredTensor], config: Mapping[str, Any]
) -> dict[str, StoredTensor]:
    """The tensors with the embedding, and with `HEAD` only where it is not the embedding.

    Raises:
        CheckpointError: a head is missing, or it and config.json contradict each other.
    """
    found = dict(tensors)
    text = config.get("text_config") or {}
    is_tied = config.get("tie_word_embeddings", True)
    is_text_tied = text.get("tie_word_embeddings", True)
    if not is_tied:
        _require(found, EMBEDDING, "no token embedding")
        _require(found, HEAD, "no lm_head.weight, and config.json says tie_word_embeddings false")
        return found
    if EMBEDDING not in found:
        # safetensors' save_model stores only the first of two names for one table
        _require(found, HEAD, "no token embedding")
        found[EMBEDDING] = found.pop(HEAD)
        return found
    if HEAD not in found:
        if not is_text_tied:
            raise _incomplete("no lm_head.weight, and text_config says tie_word_embeddings false")
        return found
    if _are_equal(found[HEAD], found[EMBEDDING]):
        del found[HEAD]
    elif is_text_tied:
        raise CheckpointError(
            "lm_head.weight differs from the token embedding, and config.json ties both "
            "(tie_word_embeddings true, its default): transformers 5 would use the stored head, "
            "transformers 4 would drop it; say tie_word_embeddings false in config.json if the "
            "head was trained, or delete lm_head.weight"
        )
    return found


def _are_equal(one: StoredTensor, other: StoredTensor) -> bool:
    """Equal values; where the bytes are the same, as they mostly are, no value is looked at."""
    if one.shape != other.shape:
        return False
    if one.dtype == other.dtype and same_bytes(
        one.path, one.offset, other.path, other.offset, one.size_bytes
    ):
        return True
    pieces = (slice(row, row + ROWS) for row in range(0, one.shape[0], ROWS))
    return all(np.array_equal(one.read(piece), other.read(piece)) for piece in pieces)


def _require(tensors: Mapping[str, Tensor], name: str, what: str) -> None:
    if name not in tensors:
        raise _incomplete(what)


def _incomplete(what: str) -> CheckpointError:
    return CheckpointError(f"the checkpoint has {what}; it is incomplete, download it again")
