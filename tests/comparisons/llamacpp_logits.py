"""What llama.cpp says of a text, and how it stored the weights.

python -m comparisons.llamacpp_logits CHECKPOINT FOLDER VARIANT THREADS IDS.npy LOGITS.npy

prints the stored sizes as JSON. Runs in llama.cpp's environment.
"""

import ctypes
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import llama_cpp as llama
import numpy as np
from comparisons.formats import HEAD, WHOLE
from comparisons.llamacpp_files import language_model
from comparisons.whole_blocks import Tensors, whole_blocks_model, whole_blocks_tensors

PASS_TOKENS = 128
"""Read at once, with the logits of all."""


class GgufSettings(ctypes.Structure):
    """`gguf_init_params` of ggml."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


@dataclass(slots=True)
class Matrices:
    """Some matrices of a file."""

    weights: int = 0
    stored_bytes: int = 0
    kinds: dict[str, int] | None = None
    """ggml's name of a type: how many of the matrices have it."""


def logits_of(path: Path, ids: np.ndarray, threads: int) -> np.ndarray:
    """Logits after every token, [tokens, vocabulary] float32."""
    llama.llama_backend_init()
    opening = llama.llama_model_default_params()
    opening.use_extra_bufts = (
        False  # repacked for AMX, llama.cpp 0.3.36 ends in a segmentation fault
    )
    model = llama.llama_model_load_from_file(str(path).encode(), opening)
    if not model:
        raise RuntimeError("llama.cpp refused the language model")
    settings = llama.llama_context_default_params()
    settings.n_ctx = -(-len(ids) // 256) * 256
    settings.n_batch = settings.n_ubatch = PASS_TOKENS
    settings.n_threads = settings.n_threads_batch = threads
    context = llama.llama_init_from_model(model, settings)
    vocabulary = llama.llama_n_vocab(llama.llama_model_get_vocab(model))
    found = np.empty((len(ids), vocabulary), np.float32)
    for first in range(0, len(ids), PASS_TOKENS):
        part = ids[first : first + PASS_TOKENS]
        _decode(context, part, first)
        logits = llama.llama_get_logits(context)
        found[first : first + len(part)] = np.ctypeslib.as_array(logits, (len(part), vocabulary))
    llama.llama_free(context)
    llama.llama_model_free(model)
    return found


def _decode(context: llama.llama_context_p, ids: np.ndarray, position: int) -> None:
    batch = llama.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for row, token in enumerate(ids):
        batch.token[row] = int(token)
        batch.pos[row] = position + row
        batch.n_seq_id[row] = 1
        batch.seq_id[row][0] = 0
        batch.logits[row] = True
    failed = llama.llama_decode(context, batch)
    llama.llama_batch_free(batch)
    if failed:
        raise RuntimeError(f"llama_decode failed at position {position}")


def sizes(tensors: Tensors) -> dict[str, Matrices]:
    """Matrices of the linear layers and of the embedding."""
    groups = {"linear": Matrices(kinds={}), "embedding": Matrices(kinds={})}
    for name, kind, weights, stored_bytes in tensors:
        if name.endswith("norm.weight"):
            continue
        group = groups["embedding" if name == HEAD else "linear"]
        group.weights += weights
        group.stored_bytes += stored_bytes
        assert group.kinds is not None
        group.kinds[kind] = group.kinds.get(kind, 0) + 1
    return groups


def stored_tensors(path: Path) -> Tensors:
    """As the file stores them."""
    ggml = llama.llama_cpp._lib
    ggml.gguf_init_from_file.argtypes = (ctypes.c_char_p, GgufSettings)
    ggml.gguf_init_from_file.restype = ctypes.c_void_p
    ggml.gguf_get_n_tensors.argtypes = (ctypes.c_void_p,)
    ggml.gguf_get_n_tensors.restype = ctypes.c_int64
    for name, result in (
        ("gguf_get_tensor_name", ctypes.c_char_p),
        ("gguf_get_tensor_type", ctypes.c_int),
        ("gguf_get_tensor_size", ctypes.c_size_t),
    ):
        function = getattr(ggml, name)
        function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_int64), result
    ggml.ggml_type_name.restype = ctypes.c_char_p
    ggml.ggml_type_size.restype = ctypes.c_size_t
    ggml.ggml_blck_size.restype = ctypes.c_int64
    file = ggml.gguf_init_from_file(str(path).encode(), GgufSettings(True, None))
    for index in range(ggml.gguf_get_n_tensors(file)):
        kind = ggml.gguf_get_tensor_type(file, index)
        size = ggml.gguf_get_tensor_size(file, index)
        weights = size // ggml.ggml_type_size(kind) * ggml.ggml_blck_size(kind)
        name = ggml.gguf_get_tensor_name(file, index).decode()
        yield name, ggml.ggml_type_name(kind).decode(), weights, size


def main() -> None:
    """Command line."""
    checkpoint, folder, variant, threads, ids, target = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    quiet = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(quiet, None)
    is_whole = variant.endswith(WHOLE)
    model = whole_blocks_model if is_whole else language_model
    path = model(Path(checkpoint), Path(folder), variant, int(threads))
    np.save(target, logits_of(path, np.load(ids), int(threads)))
    found = sizes(whole_blocks_tensors(path, variant) if is_whole else stored_tensors(path))
    saved = sum(4 * one.weights - one.stored_bytes for one in found.values()) if is_whole else 0
    groups = {name: asdict(group) for name, group in found.items()}
    print(json.dumps({"file_bytes": path.stat().st_size - saved} | groups))


if __name__ == "__main__":
    main()
