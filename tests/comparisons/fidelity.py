"""What each side's format loses on real weights, from the table that `make quality` prints."""

from collections.abc import Mapping
from pathlib import Path

from comparisons.environments import REPOSITORY, PeerKind
from comparisons.formats import WHOLE

from edge_medgemma.runtime.manifest import Precision

FAIR_WEIGHTS = "shuffled"
"""On the others llama.cpp's K formats find their own grid again: docs/performance/real-weights.md."""

PUBLISHED = REPOSITORY / "docs" / "performance" / "real-weights.md"
DEFAULT_INT4_BLOCK = 64


def kl_by_format(folder: Path) -> dict[str, str]:
    """Mean KL against float32 in nats by runtime and format, as `make quality` wrote it there.

    Where it was not run, as the documentation has it.
    """
    own = folder / "quality.md"
    path = own if own.exists() else PUBLISHED
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| {FAIR_WEIGHTS} |")
    ]
    return {cells[1]: cells[4].split(" / ")[0] for cells in rows}


def our_format(precision: Precision) -> str:
    """Name of an engine's format in that table."""
    if precision.decoder == "int4" and precision.block_size != DEFAULT_INT4_BLOCK:
        return f"int4-{precision.block_size}"
    return str(precision.decoder)


def with_kl(name: str, runtime: str, losses: Mapping[str, str]) -> str:
    """`name (KL 0.07)`, or the name where nothing was measured."""
    return f"{name} (KL {losses[runtime]})" if runtime in losses else name


def peer_runtime(kind: PeerKind) -> str:
    """Name of a peer's format in that table, which knows llama.cpp's only; of K formats as MedGemma has them."""
    if kind.module != "llamacpp":
        return ""
    return f"llama.cpp {kind.variant}{WHOLE if '_k_' in kind.variant else ''}"
