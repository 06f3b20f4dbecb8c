"""edge-medgemma itself, through its Python API."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from comparisons.worker import Peer, main

from edge_medgemma import __version__
from edge_medgemma.runtime.backends.select import AUTOMATIC, provider_identity
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.prompt import Chunk
from edge_medgemma.runtime.generation.sampling import Sampling
from edge_medgemma.runtime.manifest import load_manifest
from edge_medgemma.runtime.triage.prefill import prefill_slices


class EdgeMedgemma(Peer):
    """`folder` is an engine directory."""

    _engine: Engine
    _features: np.ndarray
    _prefix: Prefix
    _last: int = 0

    def about(self) -> str:
        """Version, precision, and who runs the vision tower."""
        precision = load_manifest(self.folder).precision
        return (
            f"edge-medgemma {__version__}, decoder {precision.decoder}, vision "
            f"{precision.vision}, {provider_identity(AUTOMATIC.vision)}"
        )

    def files(self) -> Iterable[Path]:
        """All of the engine."""
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def open(self) -> None:
        """Open the engine; its two sessions open with their first use."""
        self._engine = Engine.open(self.folder, threads=self.job.threads)

    def encode(self, images: Sequence[int]) -> None:
        """Through `Engine.encode_images`."""
        self._features = self._engine.encode_images(self.pixels[list(images)])

    def read(self) -> None:
        """Through `prefill_slices`, as `triage` and `ask` do."""
        self._prefix = prefill_slices(
            self._engine, self.job.instruction, len(self._features), self._features
        )
        if self._prefix.length != len(self.job.prefix_ids):
            raise ValueError(f"{self._prefix.length} tokens instead of {len(self.job.prefix_ids)}")

    def ask(self, questions: Sequence[Sequence[int]]) -> np.ndarray:
        """All questions in one pass."""
        return self._prefix.score(questions)

    def generate(self, ids: Sequence[int], tokens: int) -> list[int]:
        """Greedy, and rewound."""
        endless = Sampling(ignore_stop=True)  # random weights stop anywhere
        return [step.token_id for step in self._prefix.generate(ids, endless, tokens)]

    def reset(self) -> None:
        """A new prefix."""
        self._prefix = self._engine.new_prefix()

    def fill(self, ids: Sequence[int]) -> None:
        """As one chunk of text."""
        if not hasattr(self, "_prefix"):
            self.reset()
        self._last = int(self._prefix.extend(Chunk(tuple(ids), 0)).argmax())

    def decode(self, tokens: int) -> None:
        """Through `Prefix.generate`, as `ask` does; the prefix is rewound behind it."""
        self.generate([self._last], tokens)


if __name__ == "__main__":
    main(EdgeMedgemma)
