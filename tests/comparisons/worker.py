"""A peer as a process: requests come in as JSON lines on stdin, timings go out on stdout.

Needs nothing but numpy and Pillow, so that it runs in the environment of any peer.
"""

import contextlib
import json
import math
import os
import resource
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

JOB_NAME = "job.json"
PIXELS_NAME = "pixels.npy"

CONTEXT_TOKENS = 12_288
"""What the whole job may take; for caches of a fixed size."""


class Cannot(Exception):
    """The peer has no way to do a step; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the prompt: text tokens, or one slice."""

    ids: tuple[int, ...]
    """Of a slice: its image token, repeated."""
    image: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """What every peer is given: the same weights, slices, tokens and threads."""

    checkpoint: str
    threads: int
    instruction: str
    prefix: tuple[Segment, ...]
    """The prompt up to the question."""
    questions: tuple[tuple[int, ...], ...]
    report: tuple[int, ...]
    """The question that is answered in `report_tokens` tokens."""
    report_tokens: int
    yes: tuple[int, ...]
    no: tuple[int, ...]
    slices: int
    image_size: int

    def save(self, folder: Path, pixels: np.ndarray) -> None:
        """Write the job and its slices, [slices, rows, columns, 3] uint8."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / JOB_NAME).write_text(json.dumps(asdict(self)), encoding="utf-8")
        np.save(folder / PIXELS_NAME, pixels)

    @classmethod
    def load(cls, folder: Path) -> tuple["Job", np.ndarray]:
        """The job and its slices."""
        fields = json.loads((folder / JOB_NAME).read_text(encoding="utf-8"))
        fields["prefix"] = tuple(
            Segment(tuple(part["ids"]), part["image"]) for part in fields["prefix"]
        )
        return cls(**fields), np.load(folder / PIXELS_NAME)

    @property
    def prefix_ids(self) -> list[int]:
        """The prompt as token ids."""
        return [i for segment in self.prefix for i in segment.ids]


class Peer(ABC):
    """One runtime, driven step by step. `open` comes first; questions leave the prefix unchanged."""

    def __init__(self, job: Job, pixels: np.ndarray, folder: Path, variant: str) -> None:
        """`folder` is where the peer's converted files lie, `variant` its precision."""
        self.job, self.pixels, self.folder, self.variant = job, pixels, folder, variant
        self.context_tokens = CONTEXT_TOKENS

    @abstractmethod
    def about(self) -> str:
        """Version, precision and the options that were chosen for speed."""

    @abstractmethod
    def files(self) -> Iterable[Path]:
        """The weights, to be read from the disk again."""

    @abstractmethod
    def open(self) -> None:
        """Make the model ready to be asked."""

    @abstractmethod
    def encode(self, images: Sequence[int]) -> None:
        """Run the vision tower on slices, and keep what comes out."""

    @abstractmethod
    def read(self) -> None:
        """Read the whole prefix with all encoded slices."""

    @abstractmethod
    def ask(self, questions: Sequence[Sequence[int]]) -> np.ndarray:
        """Logits after each question behind the prefix, [questions, vocabulary]."""

    @abstractmethod
    def generate(self, ids: Sequence[int], tokens: int) -> list[int]:
        """Exactly so many greedy tokens behind the prefix and `ids`."""

    @abstractmethod
    def reset(self) -> None:
        """Forget everything read."""

    @abstractmethod
    def fill(self, ids: Sequence[int]) -> None:
        """Read text behind whatever was read, and compute what follows it."""

    @abstractmethod
    def decode(self, tokens: int) -> None:
        """So many greedy tokens, one at a time, behind whatever was read."""


def plain_text(start: int, count: int) -> list[int]:
    """Ids that are ordinary text in every vocabulary used here."""
    return [300 + (7 * i) % 200 for i in range(start, start + count)]


def image_tensor(pixels: np.ndarray, size: int) -> np.ndarray:
    """Slices [N, rows, columns, 3] uint8 as the checkpoint's processor makes them, [N, 3, size, size]."""
    from PIL import Image

    resized = [Image.fromarray(s).resize((size, size), Image.Resampling.BILINEAR) for s in pixels]
    values = (np.stack(resized).astype(np.float32) / 255 - 0.5) / 0.5
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


class Steps:
    """What a driver may ask for. Each returns what it counted, and more that is worth recording."""

    def __init__(self, peer: Peer) -> None:
        self.peer, self.job = peer, peer.job
        self._depth = 0

    def about(self) -> dict[str, Any]:
        """Say who answers."""
        return {"text": self.peer.about()}

    def evict(self) -> dict[str, Any]:
        """Let the system forget the weights, as after a restart."""
        for path in self.peer.files():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return {}

    def open(self, context_tokens: int = CONTEXT_TOKENS) -> dict[str, Any]:
        """Make ready, a cache of fixed size for so many tokens."""
        self.peer.context_tokens = context_tokens
        self.peer.open()
        return {}

    def load(self) -> dict[str, Any]:
        """Make ready and compute one token: a lazily mapped file is not loaded before that."""
        self.peer.open()
        self.peer.fill(plain_text(0, 1))
        return {"count": 1}

    def encode(self, images: int) -> dict[str, Any]:
        """Vision tower on the first slices."""
        self.peer.encode(range(images))
        return {"count": images}

    def read(self) -> dict[str, Any]:
        """Instruction and slices into the caches."""
        self.peer.read()
        return {"count": len(self.job.prefix_ids)}

    def ask(self, first: int, last: int) -> dict[str, Any]:
        """Some of the yes/no questions."""
        logits = self.peer.ask(self.job.questions[first:last]).astype(np.float64)
        odds = [
            _log_sum(row[list(self.job.yes)]) - _log_sum(row[list(self.job.no)]) for row in logits
        ]
        return {"count": last - first, "best": logits.argmax(-1).tolist(), "log_odds": odds}

    def report(self) -> dict[str, Any]:
        """The free text."""
        tokens = self.peer.generate(self.job.report, self.job.report_tokens)
        return {"count": len(tokens), "tokens": tokens}

    def reset(self) -> dict[str, Any]:
        """Forget."""
        self.peer.reset()
        self._depth = 0
        return {}

    def prefill(self, tokens: int) -> dict[str, Any]:
        """Text into empty caches."""
        self.reset()
        return self.fill(tokens)

    def fill(self, tokens: int) -> dict[str, Any]:
        """Read text up to a depth of `tokens`."""
        count = tokens - self._depth
        self.peer.fill(plain_text(self._depth, count))
        self._depth = tokens
        return {"count": count}

    def decode(self, tokens: int) -> dict[str, Any]:
        """Generate behind the present depth."""
        self.peer.decode(tokens)
        self._depth += tokens
        return {"count": tokens}


class Others:
    """CPU time that is not this process's own, from now on."""

    def __init__(self) -> None:
        self._begin_s = self._others_s()

    def cores(self, seconds: float) -> float:
        """Cores that other programs, and the hypervisor, kept busy on average."""
        return max(self._others_s() - self._begin_s, 0.0) / max(seconds, 1e-9)

    @staticmethod
    def _others_s() -> float:
        with open("/proc/stat", encoding="ascii") as file:
            fields = [int(word) for word in file.readline().split()[1:9]]
        user, nice, system, _idle, _waiting, interrupt, soft_interrupt, stolen = fields
        busy = user + nice + system + interrupt + soft_interrupt + stolen
        own = resource.getrusage(resource.RUSAGE_SELF)
        return busy / os.sysconf("SC_CLK_TCK") - own.ru_utime - own.ru_stime


def serve(kind: type[Peer], requests: TextIO, replies: TextIO, arguments: Sequence[str]) -> None:
    """Answer requests `{"step": NAME, ...}` one by one until stdin closes.

    A reply has `seconds`, `peak_bytes`, `others_cores` (what other programs used of the CPU
    meanwhile) and what the step returned; or `cannot` with a reason.
    """
    job_folder, folder, variant = arguments
    job, pixels = Job.load(Path(job_folder))
    peer = kind(job, pixels, Path(folder), variant)
    steps = Steps(peer)
    for line in requests:
        request = json.loads(line)
        name = request.pop("step")
        others = Others()
        begin = time.perf_counter()
        try:
            found = getattr(steps, name)(**request)
        except Cannot as reason:
            found = {"cannot": str(reason)}
        except Exception as error:  # noqa: BLE001 whatever a peer raises is its row of the table
            found = {"cannot": " ".join(f"{type(error).__name__}: {error}".split())[:400]}
        seconds = time.perf_counter() - begin
        reply = {
            "step": name,
            "seconds": seconds,
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "others_cores": others.cores(seconds),
        }
        print(json.dumps(reply | found), file=replies, flush=True)


def main(kind: type[Peer]) -> None:
    """Serve on stdin and stdout; what libraries print goes to stderr instead."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        serve(kind, sys.stdin, replies, sys.argv[1:])


def _log_sum(values: np.ndarray) -> float:
    top = float(values.max())
    return top + math.log(float(np.exp(values - top).sum()))
