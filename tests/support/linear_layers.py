"""One linear layer of drawn weights in blocks, as decoder graphs have it, and how it rounds its inputs."""

import numpy as np
import onnxruntime

from edge_medgemma.runtime.backends.onnx_writer import blocks_product_model
from edge_medgemma.runtime.backends.onnxruntime.stored_scales import with_stored_scales
from edge_medgemma.runtime.bfloat16 import rounded_to_bfloat16


def product_model(weights: np.ndarray, scales: np.ndarray, bits: int, *operator: str) -> bytes:
    """Of integers [outputs, inputs] and scales [outputs, blocks] of bfloat16."""
    packed = weights.reshape(*scales.shape, -1).astype(np.uint8)
    if bits == 4:
        packed = packed[..., ::2] | packed[..., 1::2] << 4
    return blocks_product_model(packed, scales, bits, *operator)


def dequantized(weights: np.ndarray, scales: np.ndarray, bits: int) -> np.ndarray:
    """Weights [outputs, inputs] in float64."""
    blocks = weights.reshape(*scales.shape, -1).astype(np.float64) - 2 ** (bits - 1)
    return (blocks * scales[:, :, None]).reshape(weights.shape)


def drawn(
    inputs: int, outputs: int, bits: int, block: int, *operator: str
) -> tuple[bytes, np.ndarray]:
    """A model of one linear layer, and its weights [outputs, inputs] in float64."""
    generator = np.random.default_rng(inputs + outputs)
    weights = generator.integers(0, 2**bits, (outputs, inputs))
    scales = generator.random((outputs, inputs // block), np.float32) + np.float32(0.1)
    scales = rounded_to_bfloat16(scales)
    model = product_model(weights, scales, bits, *operator)
    return model, dequantized(weights, scales, bits)


def rounded(x: np.ndarray, block: int) -> np.ndarray:
    """Inputs as the product sees them: within 127 steps of 0, a step for each block of a row."""
    blocks = x.reshape(len(x), -1, block).astype(np.float64)
    steps = np.abs(blocks).max(axis=2, keepdims=True) / 127
    return (np.rint(blocks / np.where(steps > 0, steps, 1)) * steps).reshape(x.shape)


def opened(model: bytes, library: str | None, threads: int = 2) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = False  # each tensor then has ends that a sanitizer sees
    if library:
        options.register_custom_ops_library(library)
        model = with_stored_scales(model)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
