"""ORTModelForCausalLM of optimum-onnx: the text model alone, computed in float32.

Exported with float16 weights and without folding constants, which halves file and memory. The
graph still multiplies in float32: onnxruntime turns the weights around and widens them as it loads,
but by default no matrix of more than 1 GiB. Folding the 4B head too took more than 20 GB.
"""

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from comparisons.room import TextSize, require
from comparisons.worker import Cannot, Peer, main
from optimum.exporters.onnx import main_export
from optimum.onnxruntime import ORTModelForCausalLM

NO_SLICES = "text only: optimum-onnx has no multimodal Gemma 3"
PASS_TOKENS = 512
LIBRARY_BYTES = 500_000_000
"""Of torch, onnx and onnxruntime, beside the weights."""


class OptimumOnnx(Peer):
    """The exported graph, its cache handed from call to call."""

    def about(self) -> str:
        """Versions and options."""
        return (
            f"optimum-onnx {version('optimum-onnx')}, onnxruntime {onnxruntime.__version__}, "
            f"transformers {version('transformers')}, {self.variant} made of a float16 file while "
            "it loads, a head beyond 1 GB in each step anew, CPU"
        )

    def files(self) -> Iterable[Path]:
        """Graph and weights."""
        return [path for path in self._home().iterdir() if ".onnx" in path.name]

    def open(self) -> None:
        """Load, exporting the checkpoint first where that was not done yet."""
        self._export()
        require(_loading_bytes(TextSize.of(Path(self.job.checkpoint))), "loading its graph")
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
        require(_export_bytes(Path(self.job.checkpoint)), "its export")
        partial = self._home().with_name(self.variant + ".partial")
        main_export(
            self.job.checkpoint,
            partial,
            task="text-generation-with-past",
            dtype="fp16",
            do_constant_folding=False,
            no_post_process=True,
            do_validation=False,
        )
        partial.rename(self._home())

    def _home(self) -> Path:
        return self.folder / self.variant


def _export_bytes(checkpoint: Path) -> int:
    """The checkpoint, the graph and its head once more, two bytes a weight; 18.1 GB at 4B."""
    text = TextSize.of(checkpoint)
    stored = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    return stored + 2 * text.all + 2 * text.embedding + LIBRARY_BYTES


def _loading_bytes(text: TextSize) -> int:
    """Measured with 8 layers and with all 34, which take 20 GB at the peak."""
    return text.layers * 9 // 2 + 8 * text.embedding + LIBRARY_BYTES


if __name__ == "__main__":
    main(OptimumOnnx)
