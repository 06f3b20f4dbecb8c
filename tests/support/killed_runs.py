"""Readings killed while they fill the scan cache; the next one must be right every time.

Run by a test: python -m support.killed_runs SCAN CACHE_FOLDER
"""

import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from support.kill_at import kill_at

from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.volume import SliceStack
from edge_medgemma.runtime.slicing.windows import render_stack
from edge_medgemma.runtime.store.entries import UNFINISHED, delete_unused
from edge_medgemma.runtime.store.scan_cache import Kind, ScanCache
from edge_medgemma.runtime.triage.prefill import FeatureStore, SlicePrefiller
from edge_medgemma.runtime.triage.progress import StageTracker

SLICES = np.array([8, 14, 20])


def start_reading(
    stack: SliceStack, cache: ScanCache | None, killed_at: int | None = None
) -> tuple[int, int]:
    """Process of a reading, killed where `kill_at` says, and the pipe for a question's logits."""
    receive, send = os.pipe()
    child = os.fork()
    if child:
        os.close(send)
        return child, receive
    with Engine.open(BUILTIN_ENGINE, threads=1, check_files=False) as engine:
        if killed_at is not None:
            kill_at(killed_at)
        prefiller = SlicePrefiller(engine, "Review.", stack, cache, StageTracker())
        features = FeatureStore()
        prefix = prefiller.prefill(features, prefiller.encode(features)).prefix
        logits = prefix.score([engine.prompt.question("Is there a haemorrhage?")])
    os.write(send, logits.tobytes())
    os._exit(0)


def finish(child: int, receive: int) -> bytes:
    """The logits of a reading, none if it was killed."""
    with open(receive, "rb") as pipe:
        logits = pipe.read()
    os.waitpid(child, 0)
    return logits


def main(scan: Path, folder: Path) -> None:
    """Kill a reading before each of its files gets its name, read again and compare."""
    stack = render_stack(read_volume(find_series(scan).series[0], SLICES))
    expected = finish(*start_reading(stack, None))
    assert expected, "the reading without a cache failed"
    for written in range(len(SLICES) + 1):
        delete_unused(ScanCache(folder).entries())
        assert finish(*start_reading(stack, ScanCache(folder), killed_at=written + 1)) == b""
        left = Counter(entry.kind for entry in ScanCache(folder).entries())
        assert left == Counter({Kind.FEATURES: written, UNFINISHED: 1}), left
        assert finish(*start_reading(stack, ScanCache(folder))) == expected
        kinds = Counter(entry.kind for entry in ScanCache(folder).entries())
        assert kinds == {Kind.FEATURES: len(SLICES), Kind.PREFIX: 1}, kinds


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
