"""ONNX Runtime on the CPU."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.feeds import cache_feeds
from edge_medgemma.runtime.backends.model import Caches, LaneName
from edge_medgemma.runtime.errors import DependencyError, EngineError
from edge_medgemma.runtime.manifest import Manifest

SPIN_DURATION_US = 200
"""Idle threads of the pool sleep after this long: no slower, a third of the power of the default."""


class OrtVision:
    """`vision.onnx`: slices to image tokens."""

    def __init__(self, directory: Path, threads: int | None) -> None:
        self._session = open_session(directory / "vision.onnx", threads)

    def run(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """[N, 3, image_size, image_size] to [N, tokens_per_image, hidden]."""
        features: NDArray[np.float32] = self._session.run(None, {"pixel_values": pixel_values})[0]
        return features


class OrtDecoder:
    """`decoder.onnx`: token embeddings, masks and caches to logits."""

    def __init__(self, directory: Path, manifest: Manifest, threads: int | None) -> None:
        if manifest.precision.cache == "bf16":
            raise EngineError(
                "this engine computes in bfloat16, which onnxruntime has not on a CPU; export it "
                "with --activations fp16, or with --target cpu"
            )
        self._session = open_session(directory / "decoder.onnx", threads)
        self._manifest = manifest

    def new_caches(self) -> "OrtCaches":
        """Empty caches for one sequence of tokens."""
        return OrtCaches(self._session, self._manifest)

    def run(
        self,
        caches: Caches,
        embeddings: NDArray[np.float32],
        position_ids: NDArray[np.int64],
        mask_global: NDArray[np.float32],
        mask_local: NDArray[np.float32],
        logit_rows: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """See `DecoderModel.run`."""
        assert isinstance(caches, OrtCaches)
        binding = caches.binding
        feeds = {
            "embeddings": embeddings[None],
            "position_ids": position_ids[None],
            "logit_rows": logit_rows,
            **cache_feeds(
                self._manifest.dialect,
                {"global": mask_global, "local": mask_local},
                {"global": caches.capacity("global"), "local": caches.capacity("local")},
            ),
        }
        for name, value in feeds.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(value))
        binding.bind_output("logits", "cpu")
        self._session.run_with_iobinding(binding)
        logits: NDArray[np.float32] = binding.get_outputs()[0].numpy()
        return logits


class OrtCaches:
    """Key and value buffers of every layer, bound once as past and present of the graph."""

    def __init__(self, session: Any, manifest: Manifest) -> None:
        self.binding = session.io_binding()
        self.binding.bind_output("logits", "cpu")
        self._text = manifest.text
        self._dtype = np.float16 if manifest.precision.cache == "fp16" else np.float32
        self._capacity: dict[LaneName, int] = {"global": 0, "local": 0}
        self._buffers: dict[str, NDArray[np.floating]] = {}

    def capacity(self, lane: LaneName) -> int:
        """Rows that the buffers of a lane hold."""
        return self._capacity[lane]

    def reserve(self, lane: LaneName, rows: int, used: int) -> None:
        """Make room for `rows` rows, keeping the first `used`."""
        import onnxruntime

        for name in self._names(lane):
            old = self._buffers.pop(name, None)
            new = np.zeros((1, self._text.kv_heads, rows, self._text.head_dim), self._dtype)
            if old is not None:
                new[:, :, :used] = old[:, :, :used]
            self._buffers[name] = new
            value = onnxruntime.OrtValue.ortvalue_from_numpy(new)
            self.binding.bind_ortvalue_input(f"past_{name}", value)
            self.binding.bind_ortvalue_output(f"present_{name}", value)
        self._capacity[lane] = rows

    def drop(self, lane: LaneName, count: int, used: int) -> None:
        """Move rows `count` .. `used` to the front."""
        for name in self._names(lane):
            buffer = self._buffers[name]
            buffer[:, :, : used - count] = buffer[:, :, count:used]

    def view(self, lane: LaneName, used: int) -> list[NDArray[np.floating]]:
        """The first `used` rows of every layer, not copied."""
        return [self._buffers[name][:, :, :used] for name in self._names(lane)]

    def restore(self, lane: LaneName, saved: Iterable[NDArray[np.floating]]) -> None:
        """Put back what `view` gave, at the front."""
        for name, rows in zip(self._names(lane), saved, strict=True):
            place = self._buffers[name][:, :, : rows.shape[2]]
            if (rows.shape, rows.dtype) != (place.shape, place.dtype):
                raise ValueError(
                    f"{name} is {rows.dtype} {rows.shape}, the caches take {place.dtype} "
                    f"{place.shape}"
                )
            place[...] = rows

    def _names(self, lane: LaneName) -> list[str]:
        layers = [
            i
            for i, is_global in enumerate(self._text.layer_is_global)
            if is_global == (lane == "global")
        ]
        return [f"{kind}.{i}" for i in layers for kind in ("key", "value")]


def library_version() -> str:
    """Name and version of the library: results of another one may differ in the last bits.

    Raises:
        DependencyError: no onnxruntime is installed.
    """
    return f"onnxruntime {_onnxruntime().__version__}"


def open_session(path: Path, threads: int | None) -> Any:
    """An ONNX Runtime session on the CPU.

    Raises:
        DependencyError: no onnxruntime is installed.
        EngineError: the graph does not load.
    """
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # shapes differ from pass to pass
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_DURATION_US))
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 onnxruntime's exceptions share no base
        reason = str(error).splitlines()[0]
        raise EngineError(f"'{path}' does not load ({reason}); export the engine again") from None


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise DependencyError(
            "onnxruntime is not installed; install the extra for this machine: "
            "pip install 'edge-medgemma[cpu]', or 'edge-medgemma[gpu]' with an NVIDIA card"
        ) from None
    return onnxruntime
