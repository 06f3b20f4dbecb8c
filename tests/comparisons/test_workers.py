import io
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from comparisons.environments import ENVIRONMENTS, PEERS
from comparisons.process import TESTS, OursFailed, PeerFailure, PeerProcess
from comparisons.prompts import write_job
from comparisons.stages import (
    Contest,
    measure_decode,
    measure_depths,
    measure_job,
    measure_prefill,
    measure_vision,
)
from comparisons.table import Pair, agreement, markdown
from comparisons.worker import Cannot, Job, Peer, serve

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.engine import export_engine
from edge_medgemma.runtime.generation.prompt import PromptBuilder
from edge_medgemma.runtime.generation.tokenizer import Tokenizer
from edge_medgemma.runtime.manifest import load_manifest

SCAN = TESTS / "data" / "ct_head"
CHECKPOINT = TESTS / "data" / "demo_checkpoint"
SLICES = 3


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration network in float32."""
    directory = tmp_path_factory.mktemp("peers") / "engine"
    export_engine(open_checkpoint(str(CHECKPOINT)), directory, precision="fp32", block_size=32)
    return directory


@pytest.fixture(scope="module")
def job_folder(engine: Path) -> Path:
    """What is asked of it."""
    folder = engine.parent / "job"
    write_job(folder, CHECKPOINT, engine, SCAN, SLICES, 2)
    return folder


class Counter(Peer):
    """A peer that knows text only, and whose logits say what it has read."""

    def about(self) -> str:
        return f"counter {self.variant}"

    def files(self) -> Iterable[Path]:
        return ()

    def open(self) -> None:
        self.read_ids: list[int] = []

    def encode(self, images: Sequence[int]) -> None:
        raise Cannot("text only")

    def read(self) -> None:
        self.read_ids = list(self.job.prefix_ids)

    def ask(self, questions: Sequence[Sequence[int]]) -> np.ndarray:
        logits = np.zeros((len(questions), 576), np.float32)
        logits[:, self.job.yes[0]] = 1.0
        return logits

    def generate(self, ids: Sequence[int], tokens: int) -> list[int]:
        return list(range(tokens))

    def reset(self) -> None:
        self.read_ids = []

    def fill(self, ids: Sequence[int]) -> None:
        self.read_ids += ids

    def decode(self, tokens: int) -> None:
        raise MemoryError("no room\nfor more")


def replies_to(job_folder: Path, *requests: dict[str, object]) -> list[dict[str, object]]:
    lines = io.StringIO("".join(json.dumps(request) + "\n" for request in requests))
    written = io.StringIO()
    serve(Counter, lines, written, [str(job_folder), "unused", "v1"])
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_every_request_gets_one_reply(job_folder: Path):
    about, opened, filled, deeper, fresh, report = replies_to(
        job_folder,
        {"step": "about"},
        {"step": "open"},
        {"step": "fill", "tokens": 40},
        {"step": "fill", "tokens": 100},
        {"step": "prefill", "tokens": 30},
        {"step": "report"},
    )
    assert about["text"] == "counter v1"
    assert opened["peak_bytes"] > 0 and opened["seconds"] >= 0
    assert [reply["count"] for reply in (filled, deeper, fresh)] == [40, 60, 30]
    assert report["count"] == 64


def test_what_a_peer_cannot_or_what_breaks_is_a_reason_and_the_worker_goes_on(job_folder: Path):
    _, vision, decode, asked = replies_to(
        job_folder,
        {"step": "open"},
        {"step": "encode", "images": 1},
        {"step": "decode", "tokens": 1},
        {"step": "ask", "first": 0, "last": 2},
    )
    assert vision["cannot"] == "text only"
    assert decode["cannot"] == "MemoryError: no room for more"
    assert asked["best"] == [asked["best"][0]] * 2 and asked["log_odds"][0] > 0


def test_the_job_is_our_prompt_token_for_token(engine: Path, job_folder: Path):
    job, pixels = Job.load(job_folder)
    manifest = load_manifest(engine)
    tokenizer = Tokenizer(engine / "tokenizer.json", manifest.tokens)
    chunks = PromptBuilder.open(engine, tokenizer, manifest).prefix(job.instruction, SLICES)
    assert job.prefix_ids == [i for chunk in chunks for i in chunk.ids]
    assert [s.image for s in job.prefix if s.image is not None] == list(range(SLICES))
    assert pixels.dtype == np.uint8 and pixels.shape == (SLICES, 512, 512, 3)


def test_a_peer_that_dies_is_a_reason_and_ours_dying_is_an_error(tmp_path: Path):
    log = tmp_path / "log"
    arguments = (str(tmp_path / "missing"), "unused", "")
    with (
        PeerProcess(Path(sys.executable), "no_such_peer", arguments, log) as worker,
        pytest.raises(PeerFailure, match=r"ended with 1 at open .*no_such_peer"),
    ):
        worker.ask("open")
    with (
        PeerProcess(Path(sys.executable), "ours", arguments, log) as worker,
        pytest.raises(OursFailed, match="No such file"),
    ):
        worker.ask("open")


def test_every_peer_has_its_worker_and_its_environment():
    for kind in PEERS.values():
        assert find_spec(f"comparisons.{kind.module}") and kind.environment in ENVIRONMENTS


def contest_with(
    peer: str, variant: str, engine: Path, job_folder: Path, folder: Path, tmp_path: Path
) -> Contest:
    def start(module: str, home: Path, variant: str) -> Callable[[], PeerProcess]:
        arguments = (str(job_folder), str(home), variant)
        log = tmp_path / f"{module}.log"
        return lambda: PeerProcess(Path(sys.executable), module, arguments, log)

    return Contest(
        pair=Pair(peer),
        start_ours=start("ours", engine, ""),
        start_theirs=start(peer, folder, variant),
        repeat=2,
        slices=SLICES,
        engine=engine,
        scan=SCAN,
        threads=2,
        cache_home=tmp_path,
    )


def test_transformers_and_ours_do_the_same_job(engine: Path, job_folder: Path, tmp_path: Path):
    contest = contest_with("hf", "float32", engine, job_folder, tmp_path, tmp_path)
    measure_job(contest)
    pair = contest.pair
    assert not pair.cannot
    difference = np.abs(np.subtract(pair.answers, pair.answers_ours))
    assert difference.max() < 1e-3, (difference.max(), difference.mean())
    assert pair.report == pair.report_ours, agreement(pair)
    assert "whole job" in markdown([pair])


def test_stages_take_paired_samples(engine: Path, job_folder: Path, tmp_path: Path):
    contest = contest_with("ours", "", engine, job_folder, engine, tmp_path)
    for measure, key in (
        (measure_vision, "vision"),
        (measure_prefill, "prefill"),
        (measure_decode, "decode"),
        (partial(measure_depths, known={"2k": 1030}), "prefill_2k"),
    ):
        measure(contest)
        assert len(contest.pair.ours[key]) == len(contest.pair.theirs[key]) == 2
        assert min(contest.pair.ours[key]) > 0
    assert len(contest.pair.ours["decode_2k"]) == 2
