"""What is measured, in stages: the steps of ours and of a peer, by turns."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparisons.process import PeerFailure, PeerProcess
from comparisons.prompts import FINDINGS, FOLLOW_UP, QUESTION
from comparisons.table import Pair
from comparisons.worker import CONTEXT_TOKENS

PREFILL_TOKENS = 512
DECODE_TOKENS = 32
WARM_UP_TOKENS = 8
DEPTHS = {"2k": 2048, "8k": 8192, "22k": 22_528}
"""Tokens behind which both are measured once more; 85 slices of MedGemma 4B take 22,600."""

DISTURBED_CORES = 0.15
"""Other programs that keep more of the CPU busy than this make a timing worthless."""

TRIES = 2

Start = Callable[[], PeerProcess]
Costs = dict[str, list[float]]
Sides = tuple[tuple[PeerProcess, Costs], tuple[PeerProcess, Costs]]
"""Ours and theirs."""


@dataclass(frozen=True, slots=True)
class Contest:
    """Ours against one peer."""

    pair: Pair
    start_ours: Start
    start_theirs: Start
    repeat: int
    slices: int
    engine: Path
    scan: Path
    threads: int
    cache_home: Path
    depths: tuple[str, ...] = tuple(DEPTHS)
    """Of those that are known"""

    def starts(self) -> tuple[tuple[Start, Costs], tuple[Start, Costs]]:
        """Ours and theirs: how to start it, and where its costs go."""
        return (self.start_ours, self.pair.ours), (self.start_theirs, self.pair.theirs)

    @contextmanager
    def both(self, context_tokens: int = CONTEXT_TOKENS) -> Iterator[Sides]:
        """Both started and opened."""
        with self.start_ours() as ours, self.start_theirs() as theirs:
            ours.ask("open", context_tokens=context_tokens)
            theirs.ask("open", context_tokens=context_tokens)
            yield (ours, self.pair.ours), (theirs, self.pair.theirs)

    @contextmanager
    def row(self, *keys: str) -> Iterator[None]:
        """Measure these rows anew; a peer that fails costs its rows, not the run."""
        for key in keys:
            self.pair.ours[key], self.pair.theirs[key] = [], []
            self.pair.cannot.pop(key, None)
            self.pair.others_cores.pop(key, None)
        try:
            yield
        except PeerFailure as reason:
            for key in keys:
                if not self.pair.theirs[key]:
                    self.pair.cannot[key] = str(reason)

    def record_others(self, key: str, reply: dict[str, Any]) -> None:
        """Remember how much of the CPU others had at worst."""
        worst = self.pair.others_cores.get(key, 0.0)
        self.pair.others_cores[key] = max(worst, reply["others_cores"])


def measure_load(contest: Contest) -> None:
    """A new process each time; with the files dropped from memory, then with them in it."""
    for key, is_cold in (("load_cold", True), ("load_warm", False)):
        with contest.row(key):
            for _ in range(contest.repeat):
                for start, costs in contest.starts():
                    _load(start, costs[key], is_cold)


def measure_vision(contest: Contest) -> None:
    """One slice by turns, after one that warms up."""
    with contest.row("vision"), contest.both() as sides:
        for worker, _ in sides:
            worker.ask("encode", images=1)
        for _ in range(contest.repeat):
            for worker, costs in sides:
                costs["vision"].append(_undisturbed(contest, "vision", worker, "encode", images=1))


def measure_prefill(contest: Contest) -> None:
    """Text into an empty cache by turns."""
    with contest.row("prefill"), contest.both() as sides:
        for worker, _ in sides:
            worker.ask("fill", tokens=WARM_UP_TOKENS)
        for _ in range(contest.repeat):
            for worker, costs in sides:
                seconds = _undisturbed(contest, "prefill", worker, "prefill", tokens=PREFILL_TOKENS)
                costs["prefill"].append(seconds / PREFILL_TOKENS)


def measure_decode(contest: Contest) -> None:
    """Tokens by turns behind next to nothing."""
    with contest.row("decode"), contest.both() as sides:
        for worker, _ in sides:
            worker.ask("fill", tokens=1)
        _decode(contest, "decode", sides)


def measure_depths(contest: Contest, known: Mapping[str, int] = DEPTHS) -> None:
    """Reading the last tokens of a long text, and decoding behind it; the text grows by turns."""
    depths = {name: depth for name, depth in known.items() if name in contest.depths}
    room = max(depths.values()) + (1 + contest.repeat) * len(depths) * DECODE_TOKENS
    keys = [f"{step}_{name}" for name in depths for step in ("prefill", "decode")]
    with contest.row(*keys), contest.both(room) as sides:
        for name, depth in depths.items():
            key = f"prefill_{name}"
            ends = range(depth, max(1, depth - contest.repeat * PREFILL_TOKENS), -PREFILL_TOKENS)
            for worker, _ in sides:
                worker.ask("fill", tokens=max(1, ends[-1] - PREFILL_TOKENS))
            for end in reversed(ends):
                for worker, costs in sides:
                    reply = worker.ask("fill", tokens=end)
                    contest.record_others(key, reply)
                    costs[key].append(reply["seconds"] / reply["count"])
            _decode(contest, f"decode_{name}", sides)


def measure_job(contest: Contest) -> None:
    """The whole job in a new process: ours, then the peer's; then one more question to each."""
    pair = contest.pair
    with contest.row("job", "prefill_slices", "question", "peak"):
        for start, costs in contest.starts():
            _run_job(contest, start, costs)
        pair.notes["question_new"] = (
            "start, slices and one question of its whole job, added up: it keeps nothing between "
            "processes"
        )


def measure_again(contest: Contest) -> None:
    """`edge-medgemma ask` about a scan that an earlier command has read.

    The peers' side comes from their whole job: they keep nothing between processes.
    """
    command = [
        *(sys.executable, "-m", "edge_medgemma", "ask", str(contest.scan)),
        QUESTION.format(finding=FOLLOW_UP),
        *("--engine", str(contest.engine), "--slices", str(contest.slices)),
        *("--threads", str(contest.threads), "--max-tokens", "1", "--protocol", "head_ct"),
    ]
    environment = os.environ | {"XDG_CACHE_HOME": str(contest.cache_home)}
    costs = []
    for _ in range(1 + contest.repeat):
        begin_s = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=environment)
        costs.append(time.perf_counter() - begin_s)
    contest.pair.ours["question_new"] = costs[1:]


STAGES: dict[str, Callable[[Contest], None]] = {
    "load": measure_load,
    "vision": measure_vision,
    "prefill": measure_prefill,
    "decode": measure_decode,
    "depths": measure_depths,
    "job": measure_job,
    "again": measure_again,
}


def _decode(contest: Contest, key: str, sides: Sides) -> None:
    for worker, _ in sides:
        worker.ask("decode", tokens=WARM_UP_TOKENS)
    for _ in range(contest.repeat):
        for worker, costs in sides:
            seconds = _undisturbed(contest, key, worker, "decode", tokens=DECODE_TOKENS)
            costs[key].append(seconds / DECODE_TOKENS)


def _undisturbed(
    contest: Contest, key: str, worker: PeerProcess, step: str, **request: object
) -> float:
    """Seconds of a step, tried again where other programs used the CPU meanwhile."""
    best: dict[str, Any] = {}
    for _ in range(TRIES):
        reply = worker.ask(step, **request)
        if not best or reply["others_cores"] < best["others_cores"]:
            best = reply
        if best["others_cores"] < DISTURBED_CORES:
            break
    contest.record_others(key, best)
    return float(best["seconds"])


def _run_job(contest: Contest, start: Start, costs: Costs) -> None:
    with start() as worker:
        worker.ask("open")
        contest.record_others("job", worker.ask("encode", images=contest.slices))
        read = worker.ask("read")
        read_s = time.perf_counter() - worker.begin_s
        contest.record_others("job", read)
        answers = worker.ask("ask", first=0, last=len(FINDINGS))
        report = worker.ask("report")
        costs["job"].append(time.perf_counter() - worker.begin_s)
        costs["peak"].append(report["peak_bytes"])
        costs["prefill_slices"].append(read["seconds"] / read["count"])
        follow_up = {"first": len(FINDINGS), "last": len(FINDINGS) + 1}
        costs["question"] += [worker.ask("ask", **follow_up)["seconds"] for _ in range(3)]
    if start is contest.start_theirs:
        costs["question_new"] = [read_s + costs["question"][0]]
        contest.pair.answers = answers["log_odds"]
        contest.pair.report = report["tokens"]
    else:
        contest.pair.answers_ours = answers["log_odds"]
        contest.pair.report_ours = report["tokens"]


def _load(start: Start, costs: list[float], is_cold: bool) -> None:
    with start() as worker:
        worker.ask("about")
        if is_cold:
            worker.ask("evict")
        costs.append(worker.ask("load")["seconds"])
