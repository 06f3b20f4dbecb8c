"""The smallest runtime of decoder.onnx: numpy masks, caches bound in place, one chunk at a time."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edge_medgemma.runtime.model_shape import TextSpec

Array = NDArray[np.generic]


class DecoderSession:
    """Feeds chunks to decoder.onnx; every layer's cache keeps all rows, in `capacity` places."""

    def __init__(self, engine: Path, text: TextSpec, capacity: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(engine / "decoder.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.text = text
        self.token_types = np.zeros(0, np.int64)
        shape = (1, text.kv_heads, capacity, text.head_dim)
        # Rows that were never written must not matter: fill them with something that would show.
        self.caches = {
            f"{kind}.{layer}": onnxruntime.OrtValue.ortvalue_from_numpy(
                np.full(shape, 1e3, np.float32)
            )
            for layer in range(text.layers)
            for kind in ("key", "value")
        }

    def run(self, embeddings: Array, token_types: Array, rows: list[int]) -> Array:
        """Logits [len(rows), V] of a chunk of embeddings [S, H]; token type 1 marks image tokens."""
        past, size = len(self.token_types), len(embeddings)
        self.token_types = np.concatenate([self.token_types, token_types])
        total = past + size
        binding = self.session.io_binding()
        masks = masks_for(self.token_types, self.text.sliding_window)
        feeds = {
            "embeddings": embeddings[None],
            "position_ids": np.arange(past, total, dtype=np.int64)[None],
            "logit_rows": np.array(rows, np.int64),
        }
        for kind, mask in zip(("global", "local"), masks, strict=True):
            feeds[f"mask_{kind}"] = mask[None, None, past:]
            feeds[f"seqlen_{kind}"] = np.array([total - 1], np.int32)
            feeds[f"total_{kind}"] = np.array(total, np.int32)
        for name, array in feeds.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for value in self.session.get_inputs():
            if value.name.startswith("use_"):
                binding.bind_cpu_input(value.name, np.array(False))
            elif "_scale." in value.name:
                binding.bind_cpu_input(value.name, np.ones(value.shape, np.float32))
            elif "_int8." in value.name:
                _, heads, _, size = value.shape
                empty = np.zeros((1, heads, 0, size), np.int8)
                cache = onnxruntime.OrtValue.ortvalue_from_numpy(empty)
                binding.bind_ortvalue_input(value.name, cache)
                binding.bind_ortvalue_output(value.name.replace("past", "present"), cache)
        for name, cache in self.caches.items():
            kind, layer = name.split(".")
            binding.bind_ortvalue_input(f"past_{kind}.{layer}", cache)
            binding.bind_ortvalue_output(f"present_{kind}.{layer}", cache)
        binding.bind_output("logits")
        self.session.run_with_iobinding(binding)
        return binding.get_outputs()[-1].numpy()


def masks_for(token_types: Array, window: int) -> tuple[Array, Array]:
    """Additive masks [T, T] of global and local layers over a whole sequence."""
    count = len(token_types)
    starts = (token_types == 1) & (np.concatenate([[0], token_types[:-1]]) != 1)
    block = np.where(token_types == 1, np.cumsum(starts), -1)
    query, key = np.arange(count)[:, None], np.arange(count)[None]
    seen = (key <= query) | ((block[:, None] == block[None]) & (block[:, None] >= 0))
    near = seen & (key > query - window)
    return tuple(np.where(mask, 0, -np.inf).astype(np.float32) for mask in (seen, near))
