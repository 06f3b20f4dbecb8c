"""The compiled part of `backends.operators`: as a library, onnxruntime finds operators in it."""

def supported() -> bool:
    """Whether this processor has AVX512_VNNI."""

def has_attention() -> bool:
    """Whether it has AVX512_BF16 as well: else attention is left to onnxruntime."""
