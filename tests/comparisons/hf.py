"""transformers on torch: the reference implementation, in the dtype that is fastest here."""

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from comparisons.worker import Peer, image_tensor, main

PASS_TOKENS = 512
"""Rows of one pass over text; more gained nothing and costs memory."""


class Transformers(Peer):
    """Gemma3ForConditionalGeneration with scaled_dot_product_attention."""

    def about(self) -> str:
        """Versions and options."""
        return f"transformers {transformers.__version__}, torch {torch.__version__}, {self.variant}, sdpa"

    def files(self) -> Iterable[Path]:
        """The checkpoint itself."""
        return Path(self.job.checkpoint).glob("*.safetensors")

    def open(self) -> None:
        """Load the checkpoint; `variant` is a torch dtype."""
        torch.set_num_threads(self.job.threads)
        torch.set_grad_enabled(False)
        model = transformers.Gemma3ForConditionalGeneration.from_pretrained(
            self.job.checkpoint,
            dtype=getattr(torch, self.variant),
            attn_implementation="sdpa",
            local_files_only=True,
        )
        self._model: Any = model.eval()
        self.reset()

    def encode(self, images: Sequence[int]) -> None:
        """One slice at a time."""
        pixels = image_tensor(self.pixels[list(images)], self.job.image_size)
        values = torch.from_numpy(pixels).to(self._model.dtype)
        outputs = [self._model.model.get_image_features(value[None]) for value in values]
        self._features = torch.cat([getattr(output, "pooler_output", output) for output in outputs])

    def read(self) -> None:
        """The whole prefix in one pass, as `generate` does it."""
        self.reset()
        ids = torch.tensor([self.job.prefix_ids])
        is_image = torch.tensor([[s.image is not None for s in self.job.prefix for _ in s.ids]])
        embeddings = self._model.get_input_embeddings()(ids)
        embeddings[is_image] = self._features.reshape(-1, embeddings.shape[-1])
        self._model.model(
            inputs_embeds=embeddings,
            token_type_ids=is_image.long(),
            past_key_values=self._cache,
            use_cache=True,
        )

    def ask(self, questions: Sequence[Sequence[int]]) -> np.ndarray:
        """Each on a copy of the cache, whose sliding layers cannot be rewound."""
        return np.stack([self._forward(q, copy.deepcopy(self._cache)) for q in questions])

    def generate(self, ids: Sequence[int], tokens: int) -> list[int]:
        """Greedy on a copy of the cache."""
        cache = copy.deepcopy(self._cache)
        found = [int(self._forward(ids, cache).argmax())]
        while len(found) < tokens:
            found.append(int(self._forward(found[-1:], cache).argmax()))
        return found

    def reset(self) -> None:
        """An empty cache."""
        self._cache = transformers.DynamicCache(config=self._model.config.get_text_config())
        self._last = 0

    def fill(self, ids: Sequence[int]) -> None:
        """Text behind whatever there is."""
        for start in range(0, len(ids), PASS_TOKENS):
            self._last = int(self._forward(ids[start : start + PASS_TOKENS], self._cache).argmax())

    def decode(self, tokens: int) -> None:
        """Greedy, one by one."""
        for _ in range(tokens):
            self.fill([self._last])

    def _forward(self, ids: Sequence[int], cache: Any) -> np.ndarray:
        output = self._model(
            input_ids=torch.tensor([list(ids)]),
            token_type_ids=torch.zeros((1, len(ids)), dtype=torch.long),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[0, -1].float().numpy()


if __name__ == "__main__":
    main(Transformers)
