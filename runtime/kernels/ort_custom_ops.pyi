"""The compiled part of `backends.onnxruntime.custom_ops`: onnxruntime's operators come from it."""

def supported() -> bool:
    """Whether this processor has AVX512_VNNI."""

def has_attention() -> bool:
    """Whether it has AVX512_BF16 as well: else attention is left to onnxruntime."""
