"""The two ends of the vision tower, where pixels become patches and patches become tokens.

As a convolution and a pooling, which every target has, or as products of matrices, which need no
cuDNN on CUDA.
"""

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_medgemma.export.graphs.graph import GraphBuilder


@dataclass(frozen=True, slots=True)
class Grid:
    """A square picture of square patches, of which `window` x `window` make a token."""

    side: int
    """Patches in a row"""
    patch_size: int
    hidden_size: int
    window: int


def convolved(
    graph: GraphBuilder,
    pixels: ir.Value,
    kernel: NDArray[np.float32],
    bias: NDArray[np.float32],
    grid: Grid,
    name: str,
) -> ir.Value:
    """Pixels [N, 3, size, size] to patches [N, P, H] by a Conv with `kernel` [H, 3, patch, patch]."""
    inputs = [pixels, graph.array(f"{name}.weight", kernel), graph.array(f"{name}.bias", bias)]
    sides = [grid.patch_size, grid.patch_size]
    found = graph.node("Conv", inputs, {"kernel_shape": sides, "strides": sides}, name=name)
    rows = _reshaped(graph, found, [0, grid.hidden_size, -1], f"{name}.rows")
    return graph.node("Transpose", [rows], {"perm": [0, 2, 1]}, name=f"{name}.patches")


def multiplied(
    graph: GraphBuilder,
    pixels: ir.Value,
    kernel: NDArray[np.float32],
    bias: NDArray[np.float32],
    grid: Grid,
    name: str,
) -> ir.Value:
    """`convolved` as a MatMul of the pixels of each patch."""
    side, size = grid.side, grid.patch_size
    apart = _reshaped(graph, pixels, [0, 3, side, size, side, size], f"{name}.apart")
    perm = [0, 2, 4, 1, 3, 5]
    turned = graph.node("Transpose", [apart], {"perm": perm}, name=f"{name}.turned")
    rows = _reshaped(graph, turned, [0, side * side, 3 * size * size], f"{name}.rows")
    matrix = np.ascontiguousarray(kernel.reshape(grid.hidden_size, -1).T)
    weight = graph.array(f"{name}.weight", matrix)
    product = graph.node("MatMul", [rows, weight], name=f"{name}.product")
    return graph.node("Add", [product, graph.array(f"{name}.bias", bias)], name=name)


def pooled(graph: GraphBuilder, patches: ir.Value, grid: Grid) -> ir.Value:
    """The average of the patches under each token, [N, P, H] to [N, tokens, H]."""
    turned = graph.node("Transpose", [patches], {"perm": [0, 2, 1]}, name="pool.channels")
    shape = [0, grid.hidden_size, grid.side, grid.side]
    square = _reshaped(graph, turned, shape, "pool.grid")
    sides = {"kernel_shape": [grid.window] * 2, "strides": [grid.window] * 2}
    average = graph.node("AveragePool", [square], sides, name="pool.average")
    rows = _reshaped(graph, average, [0, grid.hidden_size, -1], "pool.rows")
    return graph.node("Transpose", [rows], {"perm": [0, 2, 1]}, name="pool.tokens")


def averaged(graph: GraphBuilder, patches: ir.Value, grid: Grid) -> ir.Value:
    """`pooled` as a MatMul with the share [tokens, P] of every patch in every token."""
    tokens = grid.side // grid.window
    line = np.repeat(np.eye(tokens, dtype=np.float32), grid.window, axis=1) / grid.window
    weight = graph.array("pool.shares", np.kron(line, line).astype(np.float32))
    return graph.node("MatMul", [weight, patches], name="pool.tokens")


def grid_of(image_size: int, patch_size: int, hidden_size: int, tokens_per_image: int) -> Grid:
    """The grid of a vision tower."""
    side = image_size // patch_size
    return Grid(side, patch_size, hidden_size, side // math.isqrt(tokens_per_image))


def _reshaped(graph: GraphBuilder, x: ir.Value, shape: list[int], name: str) -> ir.Value:
    target = graph.constant(f"{name}.shape", np.array(shape, np.int64))
    return graph.node("Reshape", [x, target], name=name)
