"""ORTModelForCausalLM of optimum-onnx: the text model alone, in float32."""

import json
import os
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from optimum.exporters.onnx import main_export
from optimum.onnxruntime import ORTModelForCausalLM
from peers.worker import Cannot, Peer, main

NO_SLICES = "text only: optimum-onnx has no multimodal Gemma 3"
PASS_TOKENS = 512
EXPORT_COPIES = 2
"""Measured: 12.5 GB at its peak for a graph of 5.8 GB."""


class OptimumOnnx(Peer):
    """The exported graph, its cache handed from call to call."""

    def about(self) -> str:
        """Versions and options."""
        return (
            f"optimum-onnx {version('optimum-onnx')}, onnxruntime {onnxruntime.__version__}, "
            f"transformers {version('transformers')}, {self.variant}, CPU"
        )

    def files(self) -> Iterable[Path]:
        """Graph and weights."""
        return [path for path in self._home().iterdir() if ".onnx" in path.name]

    def open(self) -> None:
        """Load, exporting the checkpoint first where that was not done yet."""
        self._export()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.job.threads
        self._model = ORTModelForCausalLM.from_pretrained(self._home(), session_options=options)
        self.reset()

    def encode(self, images: Sequence[int]) -> None:
        """Not possible."""
        raise Cannot(NO_SLICES)

    def read(self) -> None:
        """Not possible."""
        raise Cannot(NO_SLICES)

    def ask(self, questions: Sequence[Sequence[int]]) -> np.ndarray:
        """Not possible."""
        raise Cannot(NO_SLICES)

    def generate(self, ids: Sequence[int], tokens: int) -> list[int]:
        """Not possible."""
        raise Cannot(NO_SLICES)

    def reset(self) -> None:
        """No cache."""
        self._cache: object = None
        self._depth = self._last = 0

    def fill(self, ids: Sequence[int]) -> None:
        """Text behind whatever there is."""
        for start in range(0, len(ids), PASS_TOKENS):
            part = torch.tensor([list(ids[start : start + PASS_TOKENS])])
            self._depth += part.shape[1]
            output = self._model(
                input_ids=part,
                attention_mask=torch.ones((1, self._depth), dtype=torch.long),
                past_key_values=self._cache,
                use_cache=True,
            )
            self._cache = output.past_key_values
            self._last = int(output.logits[0, -1].argmax())

    def decode(self, tokens: int) -> None:
        """Greedy, one by one."""
        for _ in range(tokens):
            self.fill([self._last])

    def _export(self) -> None:
        if self._home().exists():
            return
        needed, present = (
            self._export_bytes(),
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        )
        if needed > present:
            raise Cannot(
                f"its export holds the float32 graph of {needed / EXPORT_COPIES / 1e9:.0f} GB twice, "
                f"this machine has {present / 1e9:.0f} GB"
            )
        partial = self._home().with_name(self.variant + ".partial")
        main_export(
            self.job.checkpoint, partial, task="text-generation-with-past", do_validation=False
        )
        partial.rename(self._home())

    def _export_bytes(self) -> int:
        """Float32 of the language model with a head of its own, as often as the export holds it."""
        config = json.loads((Path(self.job.checkpoint) / "config.json").read_text())["text_config"]
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        attention = 2 * hidden * config["head_dim"] * (heads + config["num_key_value_heads"])
        layer = attention + 3 * hidden * config["intermediate_size"]
        count = config["num_hidden_layers"] * layer + 2 * config["vocab_size"] * hidden
        return 4 * EXPORT_COPIES * int(count)

    def _home(self) -> Path:
        return self.folder / self.variant


if __name__ == "__main__":
    main(OptimumOnnx)
