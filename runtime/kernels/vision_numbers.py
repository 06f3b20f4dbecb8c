"""The vision tower's kernels on a few numbers beside numpy: what a trial of a level runs in a child."""

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.kernels.level import KERNELS, cpu_kernels
from edge_medgemma.runtime.trial import step

LARGEST_DIFFERENCE = 2**-5
"""Norm of a difference, relative to the norm. Attention in bytes leaves up to 1.5e-2, in bfloat16 3e-3, and a
quantised number halfway between two 2e-3; one wrong key or weight leaves 1e-1."""

_ROWS, _INPUTS, _OUTPUTS = 37, 70, 101
_STORED, _ACTIVATED = 0, 2
_GRID = 0.03

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


def vision_fault() -> str | None:
    """What is wrong at the level in use, as the end of a sentence; None where nothing is."""
    parts = {
        "the linear layers of the vision tower": _linear,
        "norm and activation of the vision tower": _norm_and_gelu,
        "attention of the vision tower": _attention,
    }
    for what, compute in parts.items():
        step(KERNELS, what)
        given, expected = compute(np.random.default_rng(0))
        difference = np.linalg.norm(given - expected) / np.linalg.norm(expected)
        if not difference <= LARGEST_DIFFERENCE:
            allowed = f"{LARGEST_DIFFERENCE:.0e} is allowed"
            return f"differs from numpy by {difference:.1e} in {what}, {allowed}"
    return None


class _Layer:
    """A random linear layer of int8 weights, and rows in int8 for it."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.threads = cpu_kernels.vision_threads(2)
        self.weights = generator.integers(-128, 128, (_INPUTS, _OUTPUTS), np.int8)
        self.scales = generator.uniform(1e-4, 2e-4, _OUTPUTS).astype(np.float32)
        self.bias = generator.standard_normal(_OUTPUTS, np.float32)
        self.sizes = cpu_kernels.vision_sizes(self.threads, _ROWS, _INPUTS, _OUTPUTS)
        self.packed = np.empty(self.sizes[1], np.uint8)
        cpu_kernels.vision_pack(self.threads, self.weights, _INPUTS, _OUTPUTS, self.packed)

    def quantised(self, x: Floats, *norm: Floats) -> Bytes:
        """On a grid of 1, or after a norm on a grid of `_GRID`."""
        rows = np.zeros(self.sizes[0], np.uint8)
        weight, bias = norm or (None, None)
        inverse = 1 / _GRID if norm else 1.0
        cpu_kernels.vision_quantise(
            self.threads, x, weight, bias, _ROWS, _INPUTS, 1e-5, inverse, rows
        )
        return rows

    def multiplied(self, rows: Bytes) -> Floats:
        out = np.empty((_ROWS, _OUTPUTS), np.float32)
        cpu_kernels.vision_linear(
            self.threads, rows, self.packed, self.scales, self.bias,
            _ROWS, _INPUTS, _OUTPUTS, _STORED, out, 1.0,
        )  # fmt: skip
        return out

    def expected(self, x: NDArray[np.floating]) -> Floats:
        products = np.rint(x).clip(-128, 127).astype(np.int64) @ self.weights.astype(np.int64)
        scaled: Floats = (products * self.scales + self.bias).astype(np.float32)
        return scaled


def _linear(generator: np.random.Generator) -> tuple[Floats, Floats]:
    layer = _Layer(generator)
    x = generator.integers(-128, 128, (_ROWS, _INPUTS)).astype(np.float32)
    x[0] = -128
    return layer.multiplied(layer.quantised(x)), layer.expected(x)


def _norm_and_gelu(generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Rows after a norm, multiplied; then GELU of the products, which are read back as rows."""
    layer = _Layer(generator)
    x = generator.normal(0.7, 2, (_ROWS, _INPUTS)).astype(np.float32)
    weight, bias = generator.standard_normal((2, _INPUTS), np.float32)
    rows = layer.quantised(x, weight, bias)
    centred = x - x.mean(axis=1, keepdims=True)
    normed = centred / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5) * weight + bias
    products = layer.expected(normed / _GRID)
    wide = np.zeros(cpu_kernels.vision_sizes(layer.threads, _ROWS, _OUTPUTS, 1)[0], np.uint8)
    cpu_kernels.vision_linear(
        layer.threads, rows, layer.packed, layer.scales, layer.bias,
        _ROWS, _INPUTS, _OUTPUTS, _ACTIVATED, wide, 1 / _GRID,
    )  # fmt: skip
    gelu = products / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (products + 0.044715 * products**3)))
    expected = np.rint(gelu / _GRID).clip(-128, 127).astype(np.float32)
    return (
        np.concatenate([layer.multiplied(rows), _read_back(layer, wide)], axis=1),
        np.concatenate([products, expected], axis=1),
    )


def _read_back(layer: _Layer, rows: Bytes) -> Floats:
    """Quantised rows of `_OUTPUTS` numbers as numbers: times the identity matrix."""
    identity = np.eye(_OUTPUTS, dtype=np.int8)
    packed = np.empty(cpu_kernels.vision_sizes(layer.threads, 1, _OUTPUTS, _OUTPUTS)[1], np.uint8)
    cpu_kernels.vision_pack(layer.threads, identity, _OUTPUTS, _OUTPUTS, packed)
    out = np.empty((_ROWS, _OUTPUTS), np.float32)
    ones, zeros = np.ones(_OUTPUTS, np.float32), np.zeros(_OUTPUTS, np.float32)
    cpu_kernels.vision_linear(
        layer.threads, rows, packed, ones, zeros, _ROWS, _OUTPUTS, _OUTPUTS, _STORED, out, 1.0
    )
    return out


def _attention(generator: np.random.Generator) -> tuple[Floats, Floats]:
    """In int16, then with the first head, whose scores are small, in bytes."""
    rows, heads, size = 150, 2, 72
    joined = generator.standard_normal((rows, 3, heads, size), np.float32)
    joined[:, :2, 0] /= 2
    out = np.empty((2, rows, heads, size), np.float32)
    packed = np.empty(cpu_kernels.vision_packed_words(rows, heads, size), np.uint32)
    threads = cpu_kernels.vision_threads(2)
    for may_be_bytes in (False, True):
        attended = out[int(may_be_bytes)]
        cpu_kernels.vision_attend(
            threads, joined, rows, heads, size, attended, packed, may_be_bytes
        )
    queries, keys, values = (joined[:, place].transpose(1, 0, 2) for place in range(3))
    scores = queries @ keys.transpose(0, 2, 1) / np.float32(np.sqrt(size))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    expected = (weights @ values).transpose(1, 0, 2)
    return out, np.stack([expected, expected])
