"""onnxruntime-genai: text only, its graphs written by its own builder."""

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime_genai
from comparisons.genai_checkpoint import write_readable
from comparisons.room import TextSize, require
from comparisons.worker import Cannot, Peer, main

NO_SLICES = "text only: its builder writes no vision tower and its decoder takes no image rows"
PASS_TOKENS = 512
BUILDER_BYTES = 500_000_000
"""Of its libraries, beside the weights."""


class GenAi(Peer):
    """A generator that only goes on."""

    def about(self) -> str:
        """Versions and options."""
        return (
            f"onnxruntime-genai {version('onnxruntime-genai')}, {self.variant} in blocks of 32 with "
            "int8 activations, head for the last token only, CPU; timings only: its builder scales "
            "positions of the local layers like those of the global ones"
        )

    def files(self) -> Iterable[Path]:
        """The decoder's weights."""
        return self._home().glob("*.data")

    def open(self) -> None:
        """Load, building from the checkpoint first where that was not done yet."""
        self._build()
        config = onnxruntime_genai.Config(str(self._home()))
        threads = {"session_options": {"intra_op_num_threads": self.job.threads}}
        config.overlay(json.dumps({"model": {"decoder": threads}}))
        self._model = onnxruntime_genai.Model(config)
        limits = json.loads((self._home() / "genai_config.json").read_text(encoding="utf-8"))
        length = min(self.context_tokens, limits["model"]["context_length"])
        self._settings = onnxruntime_genai.GeneratorParams(self._model)
        self._settings.set_search_options(max_length=length, min_length=length, do_sample=False)
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
        """A new generator: one whose window has moved on cannot be rewound."""
        self._generator = onnxruntime_genai.Generator(self._model, self._settings)

    def fill(self, ids: Sequence[int]) -> None:
        """Text behind whatever there is."""
        for start in range(0, len(ids), PASS_TOKENS):
            part = np.array([ids[start : start + PASS_TOKENS]], np.int32)
            self._generator.append_tokens(part)
        self._generator.get_logits()

    def decode(self, tokens: int) -> None:
        """Greedy, one by one."""
        for _ in range(tokens):
            self._generator.generate_next_token()

    def _build(self) -> None:
        home = self._home()
        if home.exists():
            return
        checkpoint = Path(self.job.checkpoint)
        require(_builder_bytes(TextSize.of(checkpoint)), "its model builder")
        source = write_readable(checkpoint, self.folder / "source")
        partial = home.with_name(self.variant + ".partial")
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
        command += ["-i", str(source), "-o", str(partial), "-p", self.variant, "-e", "cpu"]
        command += ["-c", str(self.folder / "cache")]
        command += ["--extra_options", "prune_lm_head=true"]
        built = subprocess.run(command, check=False, capture_output=True, text=True)
        if built.returncode < 0:
            raise Cannot(f"its model builder was ended by signal {-built.returncode}")
        if built.returncode:
            reason = built.stderr.strip().splitlines()[-1]
            raise Cannot(f"its model builder fails on this checkpoint with {reason}")
        partial.rename(home)

    def _home(self) -> Path:
        return self.folder / self.variant


def _builder_bytes(text: TextSize) -> int:
    """All weights in float32 and int4 with scales, and the head twice more; 23.8 GB at 4B."""
    return text.all * 4 + text.all * 5 // 8 + 2 * text.embedding * 4 + BUILDER_BYTES


if __name__ == "__main__":
    main(GenAi)
