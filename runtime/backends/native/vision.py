"""The vision tower computed by this package's own kernels, on threads of their own.

Between two layers a row is in float32; a linear layer takes it in int8, on the grid that the graph
says, and what it gives is float32 again, or after GELU at once int8 for the next. A layer in float32
takes rows and weights in int16, each row and each output in a scale of its own.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.native.tower import LinearWeights, Norm, Tower
from edge_medgemma.runtime.errors import DependencyError, EngineError, ProviderError, ResourceError
from edge_medgemma.runtime.host import processor_name, usable_cores
from edge_medgemma.runtime.kernels.level import cpu_kernels, kernel_level, level_absence
from edge_medgemma.runtime.manifest import Manifest, file_sha256

Floats = NDArray[np.float32]
Packed = NDArray[np.uint8]

CACHE_LINE = 64

_STORED, _ADDED, _ACTIVATED = range(3)
"""What becomes of a linear layer's products, as `vision_kernel.h` numbers it."""


@dataclass(frozen=True, slots=True)
class _Linear:
    """A linear layer, its weights in the order in which the kernel reads them."""

    packed: Packed
    scales: Floats
    bias: Floats
    inputs: int
    outputs: int
    inverse_scale: float
    """Of its inputs; 1 in float32"""


@dataclass(frozen=True, slots=True)
class _Layer:
    norm1: Norm
    qkv: _Linear
    out: _Linear
    norm2: Norm
    fc1: _Linear
    fc2: _Linear


@dataclass(frozen=True, slots=True)
class _Buffers:
    """What one slice needs: rows are the patches."""

    hidden: Floats
    """[rows, hidden]"""
    joined: Floats
    """[rows, 3 * hidden]"""
    attended: Floats
    """[rows, hidden]"""
    narrow: Packed
    """Quantised rows of the hidden size"""
    wide: Packed
    """Quantised rows of the intermediate size"""
    keys_values: Packed
    active: Floats | None
    """[rows, intermediate size] after GELU, in float32 only"""
    row_scales: Floats | None
    """[rows] of quantised ones, in float32 only"""


class NativeVision:
    """`vision.onnx`: slices to image tokens."""

    batch = 1
    """More at once are no faster."""

    def __init__(self, directory: Path, manifest: Manifest, threads: int | None) -> None:
        """Read and pack the weights.

        Raises:
            DependencyError: no kernels here.
            EngineError: the graph does not load.
            ProviderError: the graph is none that the kernels compute.
            ResourceError: too little memory.
        """
        absence = level_absence()
        if absence is not None:
            raise DependencyError(absence)
        self._vision = vision = manifest.vision
        tower = Tower(directory, manifest)
        self._is_float = tower.is_float
        self._rows = (vision.image_size // vision.patch_size) ** 2
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()
        try:
            self._threads = cpu_kernels.vision_threads(threads or usable_cores())
            self._ends = tower.ends()
            self._layers = [self._layer(tower, layer) for layer in range(vision.layers)]
            self._buffers = self._new_buffers()
        except MemoryError:
            raise ResourceError(
                "too little memory for the vision tower; close other programs"
            ) from None
        except EngineError:
            raise
        except ValueError as error:
            raise ProviderError(
                f"its kernels do not compute this tower ({error}); use --provider vision=cpu"
            ) from None

    @property
    def seconds(self) -> Mapping[str, float]:
        """Wall-clock time of each part of the last slice."""
        return dict(self._seconds)

    def run(self, pixel_values: Floats) -> Floats:
        """[N, 3, image_size, image_size] to [N, tokens_per_image, hidden]."""
        with self._lock:  # the buffers are one slice's
            return np.stack([self._run_one(one) for one in pixel_values])

    def _run_one(self, pixels: Floats) -> Floats:
        self._seconds = {}
        buffers, vision = self._buffers, self._vision
        with self._part("patches"):
            self._embed(pixels)
        for layer in self._layers:
            with self._part("norms"):
                self._quantise(buffers.hidden, layer.norm1, layer.qkv, buffers.narrow)
            with self._part("qkv"):
                self._multiply(layer.qkv, buffers.narrow, _STORED, buffers.joined)
            with self._part("attention"):
                shape = self._rows, vision.heads, vision.hidden_size // vision.heads
                arrays = buffers.attended, buffers.keys_values
                cpu_kernels.vision_attend(
                    self._threads, buffers.joined, *shape, *arrays, not self._is_float
                )
            with self._part("norms"):
                self._quantise(buffers.attended, None, layer.out, buffers.narrow)
            with self._part("attention output"):
                self._multiply(layer.out, buffers.narrow, _ADDED, buffers.hidden)
            with self._part("norms"):
                self._quantise(buffers.hidden, layer.norm2, layer.fc1, buffers.narrow)
            with self._part("fc1 and GELU"):
                self._feed_forward(layer)
            with self._part("fc2"):
                self._multiply(layer.fc2, buffers.wide, _ADDED, buffers.hidden)
        with self._part("projector"):
            return self._project()

    def _feed_forward(self, layer: _Layer) -> None:
        """Quantised hidden rows to quantised wide ones."""
        buffers, inverse_scale = self._buffers, layer.fc2.inverse_scale
        if buffers.active is None:
            self._multiply(layer.fc1, buffers.narrow, _ACTIVATED, buffers.wide, inverse_scale)
            return
        self._multiply(layer.fc1, buffers.narrow, _ACTIVATED, buffers.active)
        self._quantise(buffers.active, None, layer.fc2, buffers.wide)

    def _embed(self, pixels: Floats) -> None:
        """Patches and their positions to the hidden rows."""
        patch = self._vision.patch_size
        side = self._vision.image_size // patch
        apart = pixels.reshape(3, side, patch, side, patch).transpose(1, 3, 0, 2, 4)
        hidden = self._buffers.hidden
        np.matmul(apart.reshape(self._rows, -1), self._ends.patches, out=hidden)
        hidden += self._ends.positions

    def _project(self) -> Floats:
        """Tokens of the hidden rows: normed, averaged, normed, multiplied."""
        vision, hidden, ends = self._vision, self._buffers.hidden, self._ends
        centred = hidden - hidden.mean(axis=-1, keepdims=True)
        variance = np.square(centred).mean(axis=-1, keepdims=True)
        centred /= np.sqrt(variance + np.float32(vision.layer_norm_eps))
        normed = centred * ends.norm.weight + ends.norm.bias
        side = vision.image_size // vision.patch_size
        tokens = int(vision.tokens_per_image**0.5)
        windows = normed.reshape(tokens, side // tokens, tokens, side // tokens, -1)
        pooled = windows.mean(axis=(1, 3)).reshape(vision.tokens_per_image, -1)
        square = np.square(pooled).mean(axis=-1, keepdims=True)
        scaled = pooled / np.sqrt(square + np.float32(vision.layer_norm_eps)) * ends.token_norm
        features: Floats = scaled @ ends.projector
        return features

    def _quantise(self, rows: Floats, norm: Norm | None, linear: _Linear, out: Packed) -> None:
        weight, bias = (norm.weight, norm.bias) if norm is not None else (None, None)
        size, epsilon = linear.inputs, self._vision.layer_norm_eps
        numbers = self._rows, size, epsilon, linear.inverse_scale
        row_scales = self._buffers.row_scales
        cpu_kernels.vision_quantise(self._threads, rows, weight, bias, *numbers, out, row_scales)

    def _multiply(
        self,
        linear: _Linear,
        rows: Packed,
        after: int,
        out: Floats | Packed,
        inverse_scale: float = 1.0,
    ) -> None:
        weights = linear.packed, linear.scales, linear.bias
        shape = self._rows, linear.inputs, linear.outputs
        row_scales = self._buffers.row_scales
        cpu_kernels.vision_linear(
            self._threads, rows, *weights, *shape, after, out, inverse_scale, row_scales
        )

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        begin_s = time.perf_counter()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - begin_s

    def _layer(self, tower: Tower, index: int) -> _Layer:
        name, hidden = f"vision.encoder.layers.{index}", self._vision.hidden_size
        wide = self._vision.intermediate_size
        return _Layer(
            tower.norm(f"{name}.layer_norm1"),
            self._packed(tower.linear(f"{name}.self_attn.qkv_proj", hidden, 3 * hidden)),
            self._packed(tower.linear(f"{name}.self_attn.out_proj", hidden, hidden)),
            tower.norm(f"{name}.layer_norm2"),
            self._packed(tower.linear(f"{name}.mlp.fc1", hidden, wide)),
            self._packed(tower.linear(f"{name}.mlp.fc2", wide, hidden)),
        )

    def _packed(self, linear: LinearWeights) -> _Linear:
        shape = linear.inputs, linear.outputs
        packed = _aligned(self._sizes(*shape)[1])
        scales = np.empty(linear.outputs, np.float32) if linear.scales is None else linear.scales
        written = scales if linear.scales is None else None
        cpu_kernels.vision_pack(self._threads, linear.weights, *shape, packed, written)
        return _Linear(packed, scales, linear.bias, *shape, 1 / linear.input_scale)

    def _sizes(self, inputs: int, outputs: int) -> tuple[int, int]:
        return cpu_kernels.vision_sizes(self._threads, self._rows, inputs, outputs, self._is_float)

    def _new_buffers(self) -> _Buffers:
        vision, rows = self._vision, self._rows
        hidden, wide = vision.hidden_size, vision.intermediate_size
        words = cpu_kernels.vision_packed_words(rows, vision.heads, hidden // vision.heads)
        return _Buffers(
            hidden=np.empty((rows, hidden), np.float32),
            joined=np.empty((rows, 3 * hidden), np.float32),
            attended=np.empty((rows, hidden), np.float32),
            narrow=_aligned(self._sizes(hidden, 1)[0]),
            wide=_aligned(self._sizes(wide, 1)[0]),
            keys_values=_aligned(4 * words),
            active=np.empty((rows, wide), np.float32) if self._is_float else None,
            row_scales=np.empty(rows, np.float32) if self._is_float else None,
        )


def _aligned(size: int) -> Packed:
    """So many bytes from the beginning of a cache line on."""
    memory = np.zeros(size + CACHE_LINE, np.uint8)
    begin = -memory.ctypes.data % CACHE_LINE
    return memory[begin : begin + size]


def native_identity() -> str:
    """Level, kernels and processor: all that the numbers depend on besides the engine.

    Raises:
        DependencyError: no kernels here.
    """
    absence = level_absence()
    if absence is not None:
        raise DependencyError(absence)
    library = file_sha256(Path(cpu_kernels.__file__))
    return f"native {kernel_level()} {library} on {processor_name()}"
