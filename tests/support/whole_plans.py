"""Build both plans of the whole 4B shape for RTX 30 and 40, without a GPU.

`python tests/whole_plans.py FOLDER [PRECISION] [ACTIVATIONS]` takes 5 minutes, 11 GB of memory and
4 GB in FOLDER, for int4 and fp16.
"""

import resource
import sys
import time
from pathlib import Path

from edge_medgemma.export.checkpoint.synthetic import synthetic_checkpoint
from edge_medgemma.export.engine import export_engine
from edge_medgemma.export.target import Target
from edge_medgemma.runtime.backends.tensorrt.cache_axes import (
    GLOBAL_AXIS,
    LOCAL_AXIS,
    with_capacities,
)
from edge_medgemma.runtime.backends.tensorrt.library import BuildOptions, find_tensorrt
from edge_medgemma.runtime.backends.tensorrt.shapes import VisionShapes
from edge_medgemma.runtime.memory.device_memory import decoder_shapes
from edge_medgemma.runtime.slicing.sampling import MAX_SLICES

CAPABILITIES = ((8, 6), (8, 9))


def main(folder: Path, precision: str = "int4", activations: str = "fp16") -> None:
    """Print a line for each plan."""
    library = find_tensorrt()
    directory = folder / f"4b-{precision}-{activations}"
    target = Target("trt", activations)
    checkpoint = synthetic_checkpoint("4b")
    manifest = export_engine(
        checkpoint, directory, precision=precision, block_size=128, target=target
    )
    shapes = decoder_shapes(manifest, MAX_SLICES)
    rows = {GLOBAL_AXIS: shapes.global_rows, LOCAL_AXIS: shapes.local_rows}
    for capability in CAPABILITIES:
        for part, profiles in (
            ("decoder", shapes.profiles(manifest)),
            ("vision", VisionShapes().profiles(manifest)),
        ):
            path = directory / f"{part}.onnx"
            graph = path.read_bytes()
            if part == "decoder":
                graph = with_capacities(graph, rows)
            start = time.perf_counter()
            plan = library.build(graph, path, profiles, BuildOptions(), capability)
            elapsed_s = time.perf_counter() - start
            peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            print(
                f"{precision} {activations} SM {capability[0]}{capability[1]} {part}: "
                f"{len(plan.engine) / 1e6:.0f} MB of {manifest.files[f'{part}.data'].bytes / 1e6:.0f} "
                f"in {elapsed_s:.0f} s, peak memory so far {peak_bytes / 1e9:.1f} GB",
                flush=True,
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
