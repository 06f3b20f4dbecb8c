"""The time of a slice by part on each level, beside what the level's multiply instruction can do.

    python -m comparisons.parts --engine engines/4b --levels native avx_vnni avx2

Each level is measured in processes of its own, ours alone. Vision is timed by our plan, the decoder by
onnxruntime's profiler, and the rest of a pass is what no operator took.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from comparisons.levels import LEVELS
from comparisons.process import TESTS

from edge_medgemma.runtime.backends.native.vision import NativeVision
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prompt import Chunk
from edge_medgemma.runtime.generation.sampling import Sampling
from edge_medgemma.runtime.kernels.level import kernel_level
from edge_medgemma.runtime.manifest import Manifest, load_manifest
from edge_medgemma.runtime.profiling.kernel_peaks import kernel_peaks
from edge_medgemma.runtime.profiling.memory_bandwidth import MemoryRead
from edge_medgemma.runtime.profiling.peaks import BANDWIDTH_BYTES
from edge_medgemma.runtime.profiling.roofline import prefill_work, vision_flop

PREFILL_TOKENS, DECODE_TOKENS = 512, 32
LINEAR, ATTENTION, NORMS, REST = "linear", "attention", "norms", "rest"

VISION_PARTS = {"qkv": LINEAR, "attention output": LINEAR, "fc1 and GELU": LINEAR, "fc2": LINEAR}
VISION_PARTS |= {"attention": ATTENTION, "norms": NORMS}
"""GELU is applied to products that are still in registers, and belongs to `linear`."""

INSTRUCTIONS: Mapping[str, Mapping[tuple[str, str], str]] = {
    "amx": {
        ("vision", LINEAR): "int8 tiles",
        ("vision", ATTENTION): "bfloat16 tiles",
        ("prefill", LINEAR): "int8 tiles",
        ("prefill", ATTENTION): "bfloat16 tiles",
    },
}
"""By level, stage and part: what it multiplies with, where that is not as usual."""
USUAL = {("vision", ATTENTION): "int8", ("prefill", ATTENTION): "int16"}
USUAL |= {(stage, LINEAR): "int8" for stage in ("vision", "prefill")}
"""Where a head's products of bytes do not suffice, its attention is in int16."""


@dataclass(frozen=True, slots=True)
class Part:
    """A line of the table."""

    level: str
    stage: str
    part: str
    seconds: float
    """A slice, a pass of 512 tokens, or a token."""
    flop: float = 0
    instruction: str = ""
    peak: float = 0
    """FLOP a second; of decode, bytes a second."""

    def line(self) -> str:
        """Of a Markdown table."""
        words = ""
        if self.peak:
            share = self.flop / self.seconds / self.peak
            words = f"{share:.0%} of {self.peak / 1e9:.0f} G/s, {self.instruction}"
        return f"| {self.level} | {self.stage} | {self.part} | {self.seconds:.3g} | {words} |"


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m comparisons.parts", description=__doc__)
    parser.add_argument("--engine", type=Path, required=True, help="with an int8 vision tower")
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=["native"])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=TESTS.parent / "build" / "comparisons")
    parser.add_argument("--here", choices=STAGES, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.here:
        parts = STAGES[chosen.here](chosen.engine, chosen.threads)
        print(json.dumps([asdict(part) for part in parts]))
        return
    print("| level | part of | part | s | fraction of the measured peak |\n|---|---|---|---|---|")
    for name in chosen.levels:
        shown = LEVELS[name].command(chosen.folder)
        for stage in chosen.stages:
            command = [*shown, sys.executable, "-m", "comparisons.parts", "--here", stage]
            command += ["--engine", str(chosen.engine), "--threads", str(chosen.threads)]
            done = subprocess.run(
                command,
                env=os.environ | {"PYTHONPATH": str(TESTS)},
                check=True,
                stdout=subprocess.PIPE,
            )
            for fields in json.loads(done.stdout.splitlines()[-1]):
                print(Part(**fields).line(), flush=True)


def vision_parts(engine: Path, threads: int) -> list[Part]:
    """The second slice: the first one touches new memory."""
    manifest = load_manifest(engine)
    tower = NativeVision(engine, manifest, threads)
    size = manifest.vision.image_size
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, 3, size, size)).astype(np.float32)
    tower.run(pixels)
    begin_s = time.perf_counter()
    tower.run(pixels)
    seconds = dict.fromkeys((LINEAR, ATTENTION, NORMS), 0.0)
    for name, taken_s in tower.seconds.items():
        if name in VISION_PARTS:
            seconds[VISION_PARTS[name]] += taken_s
    whole_s = time.perf_counter() - begin_s
    linear, attention = vision_flop(manifest.vision, manifest.text.hidden_size)
    return _parts("vision", seconds, whole_s, {LINEAR: linear, ATTENTION: attention}, threads)


def prefill_parts(engine: Path, threads: int) -> list[Part]:
    """512 tokens into an empty cache."""

    def read(opened: Engine, tokens: int) -> None:
        ids = np.random.default_rng(0).integers(5, opened.manifest.text.vocabulary, tokens)
        ids[ids == opened.manifest.tokens.image] = opened.manifest.tokens.bos
        opened.new_prefix().extend(Chunk(tuple(int(i) for i in ids), 0))

    work = prefill_work(load_manifest(engine), PREFILL_TOKENS, 0)
    seconds, whole_s = _profiled(engine, threads, lambda opened: read(opened, PREFILL_TOKENS))
    flop = {LINEAR: work.weight_flop, ATTENTION: work.other_flop}
    return _parts("prefill", seconds, whole_s, flop, threads)


def decode_parts(engine: Path, threads: int) -> list[Part]:
    """A token, of 32 behind next to nothing; the peak is that of reading memory."""
    manifest: Manifest = load_manifest(engine)

    def answer(opened: Engine) -> None:
        prefix = opened.new_prefix()
        for _ in prefix.generate([5], Sampling(ignore_stop=True), DECODE_TOKENS):
            pass

    seconds, whole_s = _profiled(engine, threads, answer)
    memory = MemoryRead(threads, BANDWIDTH_BYTES)
    read = memory.bytes_per_s(5)
    memory.close()
    size = prefill_work(manifest, 1, 0, is_decode=True).bytes
    token_s = {part: taken_s / DECODE_TOKENS for part, taken_s in seconds.items()}
    parts = _parts("decode", token_s, whole_s / DECODE_TOKENS, {}, threads)
    all_s = sum(part.seconds for part in parts)
    return [*parts, Part(parts[0].level, "decode", "all", all_s, size, "memory", read)]


STAGES: dict[str, Callable[[Path, int], list[Part]]] = {
    "vision": vision_parts,
    "prefill": prefill_parts,
    "decode": decode_parts,
}


def _parts(
    stage: str,
    seconds: Mapping[str, float],
    whole_s: float,
    flop: Mapping[str, float],
    threads: int,
) -> list[Part]:
    level, peaks = kernel_level() or "none", kernel_peaks(threads)
    parts = []
    for part, taken_s in seconds.items():
        instruction = INSTRUCTIONS.get(level, {}).get((stage, part), USUAL.get((stage, part), ""))
        if part in flop and instruction in peaks:
            known = flop[part], instruction, peaks[instruction]
            parts.append(Part(level, stage, part, taken_s, *known))
        else:
            parts.append(Part(level, stage, part, taken_s))
    return [*parts, Part(level, stage, REST, whole_s - sum(seconds.values()))]


def _profiled(
    engine: Path, threads: int, action: Callable[[Engine], None]
) -> tuple[dict[str, float], float]:
    """Seconds of the decoder's operators by part, and of the action, at its second run."""
    import onnxruntime

    plain: Any = onnxruntime.SessionOptions
    with TemporaryDirectory() as folder:

        def options() -> Any:
            made = plain()
            made.enable_profiling = True
            made.profile_file_prefix = str(Path(folder) / "profile")
            return made

        onnxruntime.SessionOptions = options
        with Engine.open(engine, threads=threads, check_files=False) as opened:
            action(opened)
            begin_s = time.perf_counter()
            action(opened)
            whole_s = time.perf_counter() - begin_s
            events = json.loads(Path(opened.decoder_model()._session.end_profiling()).read_text())
    runs = [event for event in events if event["name"] == "model_run"]
    second_us = runs[len(runs) // 2]["ts"]
    seconds = dict.fromkeys((LINEAR, ATTENTION), 0.0)
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            part = _part_of(event["args"]["op_name"])
            if part in seconds and event["ts"] >= second_us:
                seconds[part] += event["dur"] / 1e6
    return seconds, whole_s


def _part_of(operator: str) -> str:
    name = operator.lower()
    if ATTENTION in name:
        return ATTENTION
    return LINEAR if "matmul" in name else REST


if __name__ == "__main__":
    main()
