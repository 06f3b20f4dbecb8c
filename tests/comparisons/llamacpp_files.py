"""Language models of llama.cpp: converted once, quantised by llama.cpp itself."""

import ctypes
from pathlib import Path

import llama_cpp as llama
from comparisons.gguf_files import stored_precision, write_language_model

FILE_TYPES = {
    "f32": llama.LLAMA_FTYPE_ALL_F32,
    "bf16": llama.LLAMA_FTYPE_MOSTLY_BF16,
    "q8_0": llama.LLAMA_FTYPE_MOSTLY_Q8_0,
    "q4_k_m": llama.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "q4_k_s": llama.LLAMA_FTYPE_MOSTLY_Q4_K_S,
    "q4_1": llama.LLAMA_FTYPE_MOSTLY_Q4_1,
    "iq4_nl": llama.LLAMA_FTYPE_MOSTLY_IQ4_NL,
    "q4_0": llama.LLAMA_FTYPE_MOSTLY_Q4_0,
}


def language_model(checkpoint: Path, folder: Path, variant: str, threads: int) -> Path:
    """The GGUF file of a variant in `folder`, made where it is missing.

    Raises:
        RuntimeError: llama.cpp could not quantise it.
    """
    target = folder / f"model-{variant}.gguf"
    if target.exists():
        return target
    as_stored = stored_precision(checkpoint)
    if variant == as_stored:
        write_language_model(checkpoint, partial(target))
        return partial(target).rename(target)
    source = language_model(checkpoint, folder, as_stored, threads)
    settings = llama.llama_model_quantize_default_params()
    settings.nthread = threads
    settings.ftype = FILE_TYPES[variant]
    names = str(source).encode(), str(partial(target)).encode()
    if llama.llama_model_quantize(*names, ctypes.byref(settings)):
        raise RuntimeError(f"llama.cpp could not quantise to {variant}")
    return partial(target).rename(target)


def partial(path: Path) -> Path:
    """Where a file is written until it is whole."""
    return path.with_name(path.name + ".partial")
