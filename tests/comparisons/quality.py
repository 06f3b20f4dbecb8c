"""What quantising costs: ours and llama.cpp on real weights, over the same tokens.

    python -m comparisons.quality

makes what is missing (checkpoints, llama.cpp, converted files, engines), measures and prints the
table. Needs the extra `real-weights`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from comparisons.environments import environment_python
from comparisons.formats import FORMATS
from comparisons.process import TESTS
from comparisons.stored_bits import stored_bits
from numpy.typing import NDArray
from real_weights.checkpoint import real_checkpoint, shuffled_checkpoint
from real_weights.engines import export, logits_of, text_ids
from real_weights.scores import Score, score

from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.generation.engine import Engine

CHECKPOINTS = {"stored": real_checkpoint, "shuffled": shuffled_checkpoint}
OURS = {
    "fp32": ("fp32",),
    "int8": ("int8",),
    "int4": ("int4",),
    "int4-32": ("int4", "--block-size", "32"),
    "int4-32-calibrated": ("int4", "--block-size", "32"),
}
"""Precision and options of `export`."""

CALIBRATED = "-calibrated"
CALIBRATION_SLICES = 8

PARTS = ("linear", "embedding")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    weights: str
    runtime: str
    file_bytes: int
    linear_bits: float
    """Bits of a weight of the decoder's linear layers, scales included."""
    embedding_bits: float
    """Of the embedding, which is the head too."""
    score: Score
    kinds: str = ""
    """How llama.cpp stored the linear layers: types and numbers of matrices."""


@dataclass(frozen=True, slots=True)
class Text:
    """What all runtimes read, and what the float32 engine says of it."""

    ids: NDArray[np.int64]
    logits: NDArray[np.float32]
    """[tokens, vocabulary]"""


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    chosen = _parser().parse_args(arguments)
    rows: list[Row] = []
    for weights in chosen.weights:
        checkpoint = CHECKPOINTS[weights]()
        folder = chosen.folder / "quality" / weights
        folder.mkdir(parents=True, exist_ok=True)
        text = read_text(checkpoint, folder)
        for name in chosen.ours:
            rows.append(ours(weights, checkpoint, folder, name, text))
            show(rows[-1])
        for variant in chosen.peers:
            rows.append(peer(weights, checkpoint, folder, variant, text, chosen.threads))
            show(rows[-1])
    table = markdown(rows)
    (chosen.folder / "quality.md").write_text(table + "\n", encoding="utf-8")
    print(table)


def show(row: Row) -> None:
    """Print a line as soon as it is measured."""
    print(markdown([row]).splitlines()[-1], file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m comparisons.quality", description=__doc__)
    parser.add_argument("--weights", nargs="+", choices=CHECKPOINTS, default=list(CHECKPOINTS))
    parser.add_argument("--ours", nargs="*", choices=OURS, default=list(OURS))
    parser.add_argument("--peers", nargs="*", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=TESTS.parent / "build" / "comparisons")
    return parser


def read_text(checkpoint: Path, folder: Path) -> Text:
    """The fixed text through the float32 engine, whose answer is kept in `folder`."""
    kept = folder / "ids.npy", folder / "logits.npy"
    if not all(path.exists() for path in kept):
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            directory = export(checkpoint, Path(scratch) / "engine", "fp32")
            with Engine.open(directory, check_files=False) as engine:
                ids = text_ids(engine)
                np.save(kept[0], ids)
                np.save(kept[1], logits_of(engine, ids))
    return Text(np.load(kept[0]), np.load(kept[1], mmap_mode="r"))


def ours(weights: str, checkpoint: Path, folder: Path, name: str, text: Text) -> Row:
    """An engine as `export` makes it today: always a new one."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        options = OURS[name]
        if name.endswith(CALIBRATED):
            options = (*options, "--calibration", str(calibrated(checkpoint, Path(scratch))))
        directory = export(checkpoint, Path(scratch) / "engine", *options)
        with Engine.open(directory, check_files=False) as engine:
            found = score(text.ids, text.logits, logits_of(engine, text.ids))
        linear, embedding = stored_bits(directory)
        size = sum(path.stat().st_size for path in directory.rglob("*"))
    return Row(weights, f"ours {name}", size, linear, embedding, found)


def calibrated(checkpoint: Path, folder: Path) -> Path:
    """calibration.json of a few slices of the head CT that the tests have."""
    path = folder / "calibration.json"
    scan = TESTS / "data" / "ct_head"
    arguments = ["calibrate", checkpoint, scan, "-o", path, "--slices", CALIBRATION_SLICES]
    done = CliRunner().invoke(cli, [str(word) for word in arguments])
    assert done.exit_code == 0, done.output
    return path


def peer(
    weights: str, checkpoint: Path, folder: Path, variant: str, text: Text, threads: int
) -> Row:
    """llama.cpp in its own environment, on its own file of the same weights."""
    python = environment_python(folder.parents[1], "llama_cpp")
    target = folder / f"logits-{variant}.npy"
    command = [python, "-m", "comparisons.llamacpp_logits", checkpoint, folder / "llama_cpp"]
    command += [variant, threads, folder / "ids.npy", target]
    done = subprocess.run(
        [str(word) for word in command],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
    )
    sizes = json.loads(done.stdout.splitlines()[-1])
    found = score(text.ids, text.logits, np.load(target, mmap_mode="r"))
    target.unlink()
    bits = [8 * sizes[part]["stored_bytes"] / sizes[part]["weights"] for part in PARTS]
    kinds = ", ".join(f"{count} {kind}" for kind, count in sizes["linear"]["kinds"].items())
    return Row(weights, f"llama.cpp {variant}", sizes["file_bytes"], *bits, found, kinds)


def markdown(rows: Sequence[Row]) -> str:
    """The table, one line for each runtime and set of weights."""
    lines = [
        "| weights | runtime | file, MB | linear / embedding, bits | KL mean / median | top-1 | perplexity |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        found = row.score
        kinds = f" ({row.kinds})" if row.kinds else ""
        lines.append(
            f"| {row.weights} | {row.runtime} | {row.file_bytes / 1e6:.0f} | {row.linear_bits:.2f} / "
            f"{row.embedding_bits:.2f}{kinds} | {found.kl_mean:.2g} / {found.kl_median:.2g} | "
            f"{found.top1:.1%} | {found.perplexity:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
