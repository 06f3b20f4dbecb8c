"""The process that decodes compressed slices, because a damaged file can abort a codec in C++.

Reads one JSON request a line from standard input, {"path", "frames", "modality"}, and answers each
with one JSON line on standard output: {"shape": [N, rows, columns]} followed by that many float32,
or {"reason"}. Run with `python -m`; `codec_process.CodecProcess` is the other end.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError
from edge_medgemma.runtime.slicing.files.limits import MAX_CODEC_BYTES
from edge_medgemma.runtime.slicing.pixels.pixel_data import decode_slices
from edge_medgemma.runtime.slicing.volume import Modality


def main() -> None:
    """Serve requests until standard input ends."""
    _limit_memory()
    # Codecs print to standard output when they meet damage: keep it for answers alone.
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answers:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        for line in sys.stdin.buffer:
            request = json.loads(line)
            header, content = _answer(request)
            answers.write(json.dumps(header).encode() + b"\n" + content)
            answers.flush()


def _answer(request: dict[str, str | list[int]]) -> tuple[dict[str, object], bytes]:
    path, frames = Path(str(request["path"])), [int(frame) for frame in request["frames"]]
    try:
        slices = np.stack(decode_slices(path, frames, Modality(str(request["modality"]))))
    except UnreadableFileError as error:
        return {"reason": str(error)}, b""
    return {"shape": slices.shape}, slices.tobytes()


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not on Windows; the size of images is bounded before in any case
        return
    resource.setrlimit(resource.RLIMIT_AS, (MAX_CODEC_BYTES, MAX_CODEC_BYTES))


if __name__ == "__main__":
    main()
