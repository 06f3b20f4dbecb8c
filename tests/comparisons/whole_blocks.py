"""What llama.cpp's K formats keep of a model whose rows are whole blocks of 256, as those of MedGemma 4B are.

Gemma 3 270M has rows of 640, for which llama.cpp takes a longer format than the one asked for. Here rows
that are no whole blocks are quantised in pairs, by llama.cpp's own function; what it keeps of them is written
into a float32 file, so that activations are not rounded. Runs in llama.cpp's environment.
"""

import ctypes
import shutil
from collections.abc import Iterator
from pathlib import Path

import gguf
import llama_cpp as llama
import numpy as np
from comparisons.formats import whole_kind
from comparisons.llamacpp_files import language_model, partial

BLOCK = 256

Tensors = Iterator[tuple[str, str, int, int]]
"""Name, type, weights and bytes of each."""


def whole_blocks_model(checkpoint: Path, folder: Path, variant: str, threads: int) -> Path:
    """The float32 GGUF file of what `variant`, `q4_k_m-whole` or `q4_k_s-whole`, keeps, made where it is missing."""
    target = folder / f"model-{variant}.gguf"
    if target.exists():
        return target
    shutil.copy(language_model(checkpoint, folder, "f32", threads), partial(target))
    file = gguf.GGUFReader(partial(target), "r+")
    for tensor in _matrices(file):
        tensor.data[:] = kept(tensor.data, _kind(tensor, variant, file))
    file.data.flush()
    return partial(target).rename(target)


def whole_blocks_tensors(path: Path, variant: str) -> Tensors:
    """As `variant` would store them."""
    file = gguf.GGUFReader(path)
    for tensor in _matrices(file):
        kind = _kind(tensor, variant, file)
        weights, stored = gguf.GGML_QUANT_SIZES[kind]
        yield (
            tensor.name,
            kind.name.lower(),
            tensor.n_elements,
            tensor.n_elements // weights * stored,
        )


def kept(values: np.ndarray, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    """Float32 [N, K] after quantising by llama.cpp and back; as many rows together as make whole blocks."""
    width = np.lcm(values.shape[1], BLOCK)
    rows = np.ascontiguousarray(values, np.float32).reshape(-1, width)
    weights, stored = gguf.GGML_QUANT_SIZES[kind]
    packed = np.empty((len(rows), width // weights * stored), np.uint8)
    quantise = llama.llama_cpp._lib.ggml_quantize_chunk
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    quantise.argtypes = (ctypes.c_int, pointer, pointer, number, number, number, pointer)
    quantise.restype = ctypes.c_size_t
    found = quantise(kind, rows.ctypes.data, packed.ctypes.data, 0, *rows.shape, None)
    if found != packed.nbytes:
        raise RuntimeError(
            f"llama.cpp wrote {found} bytes of {kind.name}, expected {packed.nbytes}"
        )
    return gguf.quants.dequantize(packed, kind).reshape(values.shape)


def _matrices(file: gguf.GGUFReader) -> list[gguf.ReaderTensor]:
    return [tensor for tensor in file.tensors if not tensor.name.endswith("norm.weight")]


def _kind(
    tensor: gguf.ReaderTensor, variant: str, file: gguf.GGUFReader
) -> gguf.GGMLQuantizationType:
    layers = int(file.fields["gemma3.block_count"].contents())
    return gguf.GGMLQuantizationType[whole_kind(tensor.name, variant, layers)]
