"""Readings killed at random while they fill the scan cache; the next one must be right every time.

Run by a test: python killed_readings.py SCAN CACHE_FOLDER KILLS
"""

import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.volume import SliceStack
from edge_medgemma.runtime.slicing.windows import render_stack
from edge_medgemma.runtime.store.scan_cache import UNFINISHED, Kind, ScanCache
from edge_medgemma.runtime.triage.prefill import FeatureStore, SlicePrefiller
from edge_medgemma.runtime.triage.progress import StageTracker

SLICES = np.array([8, 14, 20])


def start_reading(stack: SliceStack, cache: ScanCache | None) -> tuple[int, int]:
    """Process and pipe of a reading: a byte when it begins, then the logits of a question."""
    receive, send = os.pipe()
    child = os.fork()
    if child:
        os.close(send)
        return child, receive
    with Engine.open(BUILTIN_ENGINE, threads=1, check_files=False) as engine:
        os.write(send, b"!")
        prefiller = SlicePrefiller(engine, "Review.", stack, cache, StageTracker())
        features = FeatureStore()
        prefix = prefiller.prefill(features, prefiller.encode(features)).prefix
        logits = prefix.score([engine.prompt.question("Is there a haemorrhage?")])
    os.write(send, logits.tobytes())
    os._exit(0)


def finish(child: int, receive: int) -> bytes:
    """The logits of a reading that may go on to its end."""
    with open(receive, "rb") as pipe:
        logits = pipe.read()[1:]
    os.waitpid(child, 0)
    return logits


def main(scan: Path, folder: Path, kills: int) -> None:
    """Kill, look what is left, read again, compare; print how often which kinds were left."""
    stack = render_stack(read_volume(find_series(scan).series[0], SLICES))
    expected = finish(*start_reading(stack, None))
    assert expected, "the reading without a cache failed"
    begin = time.perf_counter()
    finish(*start_reading(stack, ScanCache(folder)))
    duration_s = time.perf_counter() - begin
    random.seed(3)
    left: Counter[str] = Counter()
    for _ in range(kills):
        ScanCache(folder).clear()
        child, receive = start_reading(stack, ScanCache(folder))
        os.read(receive, 1)
        time.sleep(random.uniform(0, duration_s))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(receive)
        left.update({entry.kind for entry in ScanCache(folder).entries()})
        assert finish(*start_reading(stack, ScanCache(folder))) == expected
        kinds = Counter(entry.kind for entry in ScanCache(folder).entries())
        assert kinds == {Kind.FEATURES: len(SLICES), Kind.PREFIX: 1}, kinds
    print(left[Kind.FEATURES], left[Kind.PREFIX], left[UNFINISHED])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
