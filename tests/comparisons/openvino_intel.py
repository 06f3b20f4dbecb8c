"""OpenVINO as optimum-intel exports and drives it."""

import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import openvino
import torch
from comparisons.worker import Peer, image_tensor, main
from optimum.intel import OVModelForVisualCausalLM

WEIGHTS = {
    "int4": ("--weight-format", "int4", "--group-size", "128", "--ratio", "1.0"),
    "fp32": ("--weight-format", "fp32"),
}
PASS_TOKENS = 256
"""Rows of one pass; its attention is unfused, so that longer passes are slower per row."""


class OpenVino(Peer):
    """OVModelForVisualCausalLM; its state is copied around every question."""

    def about(self) -> str:
        """Versions and options."""
        return (
            f"OpenVINO {version('openvino')}, optimum-intel {version('optimum-intel')}, "
            f"{self.variant} weights, the plugin's own choice of activations, slices in one pass, text "
            f"{PASS_TOKENS} rows a pass"
        )

    def files(self) -> Iterable[Path]:
        """Weights of all parts."""
        return self._home().glob("*.bin")

    def open(self) -> None:
        """Compile all parts, exporting the checkpoint first where that was not done yet."""
        self._export()
        settings = {"INFERENCE_NUM_THREADS": str(self.job.threads)}
        if self.variant == "fp32":
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        self._model = OVModelForVisualCausalLM.from_pretrained(self._home(), ov_config=settings)
        self._text = self._model.language_model
        self.reset()

    def encode(self, images: Sequence[int]) -> None:
        """One slice at a time."""
        pixels = image_tensor(self.pixels[list(images)], self.job.image_size)
        self._features = [
            np.array(self._model.get_vision_embeddings(torch.from_numpy(one[None])))[0]
            for one in pixels
        ]

    def read(self) -> None:
        """In one pass, as `generate` does: in several, slices see the wrong rows.

        On the demonstration network one pass gives the log-odds of transformers to 2e-3, a pass
        for each slice only to 0.26.
        """
        self.reset()
        is_image = [segment.image is not None for segment in self.job.prefix for _ in segment.ids]
        parts = [
            self._embed(segment.ids) if segment.image is None else self._features[segment.image]
            for segment in self.job.prefix
        ]
        self._forward(np.concatenate(parts), [int(image) for image in is_image])

    def ask(self, questions: Sequence[Sequence[int]]) -> np.ndarray:
        """One after the other."""
        rows = []
        for question in questions:
            state = self._save()
            rows.append(self._read_text(question))
            self._restore(state)
        return np.stack(rows)

    def generate(self, ids: Sequence[int], tokens: int) -> list[int]:
        """Greedy, and rewound."""
        state = self._save()
        found = [int(self._read_text(ids).argmax())]
        while len(found) < tokens:
            found.append(int(self._read_text(found[-1:]).argmax()))
        self._restore(state)
        return found

    def reset(self) -> None:
        """The next pass begins a sequence."""
        self._past: tuple[tuple[()], ...] | None = None
        self._last = 0

    def fill(self, ids: Sequence[int]) -> None:
        """Text behind whatever there is."""
        for start in range(0, len(ids), PASS_TOKENS):
            self._last = int(self._read_text(ids[start : start + PASS_TOKENS]).argmax())

    def decode(self, tokens: int) -> None:
        """Greedy, one by one."""
        for _ in range(tokens):
            self.fill([self._last])

    def _read_text(self, ids: Sequence[int]) -> np.ndarray:
        return self._forward(self._embed(ids), [0] * len(ids))

    def _embed(self, ids: Sequence[int]) -> np.ndarray:
        return np.array(self._model.get_text_embeddings(torch.tensor([list(ids)])))[0]

    def _forward(self, embeddings: np.ndarray, types: Sequence[int]) -> np.ndarray:
        output = self._text.forward(
            input_ids=None,
            inputs_embeds=embeddings[None],
            token_type_ids=np.array([types], np.int64),
            past_key_values=self._past,
        )
        self._past = ((),)
        return output.logits[0, -1].numpy()

    def _save(self) -> tuple[int, list[np.ndarray]]:
        states = self._text.request.query_state()
        return self._text._past_length, [state.state.data.copy() for state in states]

    def _restore(self, saved: tuple[int, list[np.ndarray]]) -> None:
        self._text._past_length = saved[0]
        for state, data in zip(self._text.request.query_state(), saved[1], strict=True):
            state.state = openvino.Tensor(data)

    def _export(self) -> None:
        if self._home().exists():
            return
        partial = self._home().with_name(self.variant + ".partial")
        command = [sys.executable, "-m", "optimum.commands.optimum_cli", "export", "openvino"]
        command += ["-m", self.job.checkpoint, "--task", "image-text-to-text"]
        subprocess.run([*command, *WEIGHTS[self.variant], str(partial)], check=True)
        partial.rename(self._home())

    def _home(self) -> Path:
        return self.folder / self.variant


if __name__ == "__main__":
    main(OpenVino)
