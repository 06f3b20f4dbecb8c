"""The process that decodes compressed slices, because a damaged file can abort a codec in C++.

Reads one JSON request a line from standard input, {"path", "frames", "modality", "limit_s"}, and
answers each with one JSON line on standard output: {"shape": [N, rows, columns], "problems": [name,
detail pairs]} followed by that many float32, or {"reason"}. SIGXCPU ends it once a request has taken `limit_s` of the processor.
Run with `python -m`; `codec_process.CodecProcess` is the other end.
"""

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

try:
    import resource
except ImportError:  # Windows: the size of images is bounded before in any case
    resource = None  # type: ignore[assignment]

from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError
from edge_medgemma.runtime.slicing.files.limits import MAX_CODEC_BYTES
from edge_medgemma.runtime.slicing.pixels.pixel_data import decode_slices
from edge_medgemma.runtime.slicing.volume import Modality


def main() -> None:
    """Serve requests until standard input ends."""
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_AS, (MAX_CODEC_BYTES, MAX_CODEC_BYTES))
    # Codecs print to standard output when they meet damage: keep it for answers alone.
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answers:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        for line in sys.stdin.buffer:
            request = json.loads(line)
            _limit_cpu_time(float(request["limit_s"]))
            header, content = _answer(request)
            answers.write(json.dumps(header).encode() + b"\n" + content)
            answers.flush()


def _answer(request: dict[str, Any]) -> tuple[dict[str, object], bytes]:
    path, frames = Path(request["path"]), [int(frame) for frame in request["frames"]]
    try:
        slices = decode_slices(path, frames, Modality(request["modality"]))
    except UnreadableFileError as error:
        return {"reason": str(error)}, b""
    problems = [[problem.name, problem.detail] for problem in slices.problems]
    return {"shape": slices.values.shape, "problems": problems}, slices.values.tobytes()


def _limit_cpu_time(more_s: float) -> None:
    """Let the process take `more_s` of the processor, rounded up, beyond what it has taken."""
    if resource is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + more_s), hard))


if __name__ == "__main__":
    main()
