"""What is measured, in stages: the steps of ours and of a peer, by turns."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from peers.process import PeerFailure, PeerProcess
from peers.prompts import FINDINGS, FOLLOW_UP, QUESTION
from peers.table import Pair

PREFILL_TOKENS = 512
DECODE_TOKENS = 32
SMALL_DECODE_TOKENS = 8
DEPTHS = {"decode": 0, "decode_2k": 2048, "decode_8k": 8192}


@dataclass(frozen=True, slots=True)
class Contest:
    """Ours against one peer."""

    pair: Pair
    start_ours: Callable[[], PeerProcess]
    start_theirs: Callable[[], PeerProcess]
    repeat: int
    slices: int
    deepest: int
    """Contexts longer than this are left out."""
    engine: Path
    scan: Path
    threads: int
    cache_home: Path


def measure_load(contest: Contest) -> None:
    """A new process each time; with the files dropped from memory, then with them in it."""
    pair = contest.pair
    for key, is_cold in (("load_cold", True), ("load_warm", False)):
        with _reasons(pair, key):
            _clear(pair, key)
            for _ in range(contest.repeat):
                _load(contest.start_ours, pair.ours[key], is_cold)
                _load(contest.start_theirs, pair.theirs[key], is_cold)


def measure_vision(contest: Contest) -> None:
    """One slice by turns, after one that warms up."""
    pair = contest.pair
    with (
        contest.start_ours() as ours,
        contest.start_theirs() as theirs,
        _reasons(pair, "vision"),
    ):
        _clear(pair, "vision")
        for worker in (ours, theirs):
            worker.ask("open")
            worker.ask("encode", images=1)
        for _ in range(contest.repeat):
            for worker, costs in ((ours, pair.ours), (theirs, pair.theirs)):
                costs["vision"].append(worker.ask("encode", images=1)["seconds"])


def measure_text(contest: Contest) -> None:
    """Prefill into an empty cache, then decode behind growing contexts, by turns."""
    pair = contest.pair
    with contest.start_ours() as ours, contest.start_theirs() as theirs:
        sides = ((ours, pair.ours), (theirs, pair.theirs))
        with _reasons(pair, "prefill"):
            _clear(pair, "prefill")
            for worker, _ in sides:
                worker.ask("open")
                worker.ask("reset")
                worker.ask("fill", tokens=64)
            for _ in range(contest.repeat):
                for worker, costs in sides:
                    worker.ask("reset")
                    seconds = worker.ask("fill", tokens=PREFILL_TOKENS)["seconds"]
                    costs["prefill"].append(seconds / PREFILL_TOKENS)
        if "prefill" in pair.cannot:
            for key, depth in DEPTHS.items():
                if depth <= contest.deepest:
                    pair.cannot[key] = pair.cannot["prefill"]
            return
        for worker, _ in sides:
            worker.ask("reset")
        for key, depth in DEPTHS.items():
            if depth > contest.deepest:
                continue
            with _reasons(pair, key):
                _clear(pair, key)
                for worker, _ in sides:
                    worker.ask("fill", tokens=max(depth, 1))
                    worker.ask("decode", tokens=SMALL_DECODE_TOKENS)
                for _ in range(contest.repeat):
                    for worker, costs in sides:
                        seconds = worker.ask("decode", tokens=DECODE_TOKENS)["seconds"]
                        costs[key].append(seconds / DECODE_TOKENS)


def measure_job(contest: Contest) -> None:
    """The whole job in a new process: ours, then the peer; then one more question."""
    pair = contest.pair
    keys = ("job", "prefill_slices", "question", "question_new", "peak")
    for key in keys:
        _clear(pair, key)
    with _reasons(pair, *keys):
        _run_job(contest.start_ours, pair.ours, contest.slices)
        again_s = _run_job(contest.start_theirs, pair.theirs, contest.slices)
        pair.theirs["question_new"].append(again_s)
        pair.notes["question_new"] = (
            "the sum of start, slices and one question of the whole job: nothing is kept between "
            "processes"
        )
        pair.ours["question_new"] += _ask_by_command(contest)


STAGES = {
    "load": measure_load,
    "vision": measure_vision,
    "text": measure_text,
    "job": measure_job,
}


def _run_job(start: Callable[[], PeerProcess], costs: dict[str, list[float]], slices: int) -> float:
    """Append the costs; return the seconds until the first question was answered."""
    with start() as worker:
        worker.ask("open")
        worker.ask("encode", images=slices)
        read = worker.ask("read")
        read_s = time.perf_counter() - worker.begin_s
        worker.ask("ask", first=0, last=len(FINDINGS))
        last = worker.ask("report")
        costs["job"].append(time.perf_counter() - worker.begin_s)
        costs["peak"].append(last["peak_bytes"])
        costs["prefill_slices"].append(read["seconds"] / read["count"])
        follow_up = {"first": len(FINDINGS), "last": len(FINDINGS) + 1}
        asked = [worker.ask("ask", **follow_up)["seconds"] for _ in range(3)]
        costs["question"] += asked
    return read_s + asked[0]


def _ask_by_command(contest: Contest) -> list[float]:
    """Seconds of `edge-medgemma ask` about a scan that an earlier run has read."""
    command = [
        *(sys.executable, "-m", "edge_medgemma.runtime", "ask", str(contest.scan)),
        QUESTION.format(finding=FOLLOW_UP),
        *("--engine", str(contest.engine), "--slices", str(contest.slices)),
        *("--threads", str(contest.threads), "--max-tokens", "1", "--protocol", "head_ct"),
    ]
    environment = os.environ | {"XDG_CACHE_HOME": str(contest.cache_home)}
    seconds = []
    for _ in range(2):
        begin_s = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=environment)
        seconds.append(time.perf_counter() - begin_s)
    return seconds[1:]


def _load(start: Callable[[], PeerProcess], costs: list[float], is_cold: bool) -> None:
    with start() as worker:
        worker.ask("about")
        if is_cold:
            worker.ask("evict")
        costs.append(worker.ask("load")["seconds"])


def _clear(pair: Pair, key: str) -> None:
    pair.ours[key], pair.theirs[key] = [], []
    pair.cannot.pop(key, None)
    pair.notes.pop(key, None)


class _reasons:  # noqa: N801 reads as a function in a with statement
    """A failing peer costs its rows, not the run."""

    def __init__(self, pair: Pair, *keys: str) -> None:
        self._pair, self._keys = pair, keys

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, PeerFailure):
            return False
        for key in self._keys:
            if not self._pair.theirs.get(key):
                self._pair.cannot[key] = str(error)
        return True
