"""The compiled part of `backends.linear`: as a library, onnxruntime finds MatMulNBits in it."""

def supported() -> bool:
    """Whether this processor has AVX512_VNNI."""
