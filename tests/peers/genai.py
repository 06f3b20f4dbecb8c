"""onnxruntime-genai: text only, its graphs written by its own builder."""

import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime_genai
from peers.worker import Cannot, Peer, main

NO_SLICES = "text only: its builder writes no vision tower and its decoder takes no image rows"


class GenAi(Peer):
    """A generator that is rewound, never copied."""

    def about(self) -> str:
        """Versions and options."""
        return f"onnxruntime-genai {version('onnxruntime-genai')}, {self.variant}, CPU"

    def files(self) -> Iterable[Path]:
        """The decoder's weights."""
        return self._home().glob("*.data")

    def open(self) -> None:
        """Load, building from the checkpoint first where that was not done yet."""
        self._build()
        self._model = onnxruntime_genai.Model(str(self._home()))
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
        """A new generator."""
        settings = onnxruntime_genai.GeneratorParams(self._model)
        settings.set_search_options(max_length=12_288, min_length=12_288, do_sample=False)
        self._generator = onnxruntime_genai.Generator(self._model, settings)

    def fill(self, ids: Sequence[int]) -> None:
        """Text behind whatever there is."""
        self._generator.append_tokens(np.array([ids], np.int32))
        self._generator.get_logits()

    def decode(self, tokens: int) -> None:
        """Greedy, one by one."""
        for _ in range(tokens):
            self._generator.generate_next_token()

    def _build(self) -> None:
        home = self._home()
        if home.exists():
            return
        partial = home.with_name(self.variant + ".partial")
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
        command += ["-i", self.job.checkpoint, "-o", str(partial), "-p", self.variant, "-e", "cpu"]
        command += ["-c", str(self.folder / "cache")]
        built = subprocess.run(command, check=False, capture_output=True, text=True)
        if built.returncode:
            reason = built.stderr.strip().splitlines()[-1]
            raise Cannot(f"its model builder fails on this checkpoint with {reason}")
        partial.rename(home)

    def _home(self) -> Path:
        return self.folder / self.variant


if __name__ == "__main__":
    main(GenAi)
