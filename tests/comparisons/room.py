"""Whether the memory is there for what a peer's tools hold at once."""

import json
from dataclasses import dataclass
from pathlib import Path

from comparisons.worker import Cannot


@dataclass(frozen=True, slots=True)
class TextSize:
    """Weights of a checkpoint's language model, in numbers."""

    layers: int
    embedding: int
    """Which is the head as well."""

    @classmethod
    def of(cls, checkpoint: Path) -> "TextSize":
        """Matrices only: norms are next to nothing."""
        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["text_config"]
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        attention = 2 * hidden * config["head_dim"] * (heads + config["num_key_value_heads"])
        layer = attention + 3 * hidden * config["intermediate_size"]
        return cls(config["num_hidden_layers"] * layer, config["vocab_size"] * hidden)

    @property
    def all(self) -> int:
        """With the embedding once."""
        return self.layers + self.embedding


def available_bytes() -> int:
    """What programs can still have without swapping."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":") for line in lines)
    return 1024 * int(fields["MemAvailable"].split()[0])


def require(needed_bytes: int, what: str) -> None:
    """Stop before a tool is killed halfway.

    Raises:
        Cannot: less is available.
    """
    present = available_bytes()
    if needed_bytes > present:
        raise Cannot(
            f"{what} takes {needed_bytes / 1e9:.1f} GB, {present / 1e9:.1f} GB were available"
        )
