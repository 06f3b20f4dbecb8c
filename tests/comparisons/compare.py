"""Ours and the peers on the same weights, slices, questions and threads, by turns.

    python -m comparisons.compare --shape 4b --peers llama.cpp-q4_0 transformers-bf16

makes what is missing (environments, checkpoint, converted files), measures, adds the samples to
those of earlier runs and prints the table. See `--help` for stages and sizes. `--level avx2` shows
both an older processor; a run that was ended goes on where it was with `--resume`.
"""

import argparse
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from comparisons.checkpoint import write_checkpoint
from comparisons.environments import PEERS, environment_python
from comparisons.fidelity import kl_by_format, our_format, peer_runtime, with_kl
from comparisons.levels import LEVELS, Level
from comparisons.process import TESTS, PeerFailure, PeerProcess
from comparisons.prompts import write_job
from comparisons.stages import DEPTHS, STAGES, Contest
from comparisons.table import Pair, load_pairs, markdown, save_pairs

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.checkpoint.synthetic import synthetic_checkpoint
from edge_medgemma.export.engine import export_engine
from edge_medgemma.export.quantisation.quant_scheme import default_block_size
from edge_medgemma.export.synthetic_ranges import synthetic_vision_ranges
from edge_medgemma.runtime.manifest import load_manifest

SCAN = TESTS / "data" / "ct_head"
QUICK_STAGES = ["vision", "prefill", "decode", "job"]
PHANTOM = TESTS / "data" / "demo_checkpoint"


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    chosen = _parser().parse_args(arguments)
    if chosen.quick:
        chosen.repeat, chosen.slices, chosen.stages = 1, 2, QUICK_STAGES
    folder = (chosen.folder / chosen.shape).resolve()
    if not chosen.only_print:
        _show(LEVELS[chosen.level], folder)
    results = folder / "results.json"
    pairs = load_pairs(results)
    if not chosen.only_print:
        checkpoint = chosen.checkpoint or _checkpoint(folder, chosen.shape)
        engine = chosen.engine or _engine(folder, checkpoint, chosen.shape)
        job = folder / f"job-{chosen.slices}"
        write_job(job, checkpoint.resolve(), engine, SCAN, chosen.slices, chosen.threads)
        for name in chosen.peers:
            pair = _pair(chosen, pairs, name, engine)
            stages = [s for s in chosen.stages if not (chosen.resume and s in pair.done)]
            contest = _contest(chosen, pair, folder, job, engine.resolve())
            if not stages or not _introduce(contest):
                save_pairs(results, pairs)
                continue
            for stage in stages:
                print(f"{name} at {pair.level}: {stage}", file=sys.stderr, flush=True)
                STAGES[stage](contest)
                pair.done = sorted({*pair.done, stage})
                save_pairs(results, pairs)
    table = markdown(list(pairs.values()))
    (folder / "table.md").write_text(table, encoding="utf-8")
    print(table)


def _show(level: Level, folder: Path) -> None:
    """Begin again as a program that is shown the level, and its children with it."""
    if level.cpu in (None, os.environ.get("OLDER_CPU")):
        return
    try:
        command = level.command(folder)
    except (OSError, subprocess.CalledProcessError) as reason:
        raise SystemExit(f"this machine cannot show level {level.name}: {reason}") from None
    if command:
        os.execvp(
            command[0], [*command, sys.executable, "-m", "comparisons.compare", *sys.argv[1:]]
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m comparisons.compare", description=__doc__)
    parser.add_argument("--shape", choices=("4b", "tiny"), default="tiny")
    parser.add_argument("--peers", nargs="+", choices=PEERS, metavar="PEER", default=list(PEERS))
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--depths", nargs="+", choices=DEPTHS, default=list(DEPTHS))
    parser.add_argument("--level", choices=LEVELS, default="native", help="processor to show both")
    parser.add_argument("--resume", action="store_true", help="leave out stages measured earlier")
    parser.add_argument("--quick", action="store_true", help="2 slices, once, fewer stages")
    parser.add_argument("--repeat", type=int, default=3, help="turns of each timing but the job's")
    parser.add_argument("--slices", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=TESTS.parent / "build" / "comparisons")
    parser.add_argument("--environments", type=Path, help="default: --folder")
    parser.add_argument("--checkpoint", type=Path, help="a Gemma 3 folder; default: random weights")
    parser.add_argument("--engine", type=Path, help="ours; default: exported from the checkpoint")
    parser.add_argument("--only-print", action="store_true", help="the table of earlier runs")
    return parser


def _pair(chosen: argparse.Namespace, pairs: dict[str, Pair], name: str, engine: Path) -> Pair:
    """Earlier samples of this peer, level and format of ours, or none yet."""
    ours, kind = our_format(load_manifest(engine).precision), PEERS[name]
    pair = pairs.setdefault(f"{name} {chosen.level} {ours}", Pair(name, level=chosen.level))
    losses = kl_by_format(chosen.folder)
    pair.format = with_kl(name, peer_runtime(kind), losses)
    pair.format_ours = with_kl(ours, f"ours {ours}", losses)
    return pair


def _checkpoint(folder: Path, shape: str) -> Path:
    """Random weights of the true shape; `tiny` is the trained demonstration network.

    That one is written anew too: older transformers know the hub's tensor names only.
    """
    path = folder / "checkpoint"
    if not path.exists():
        print(f"writing {path}", file=sys.stderr)
        source = open_checkpoint(str(PHANTOM)) if shape == "tiny" else synthetic_checkpoint(shape)
        write_checkpoint(source, path.with_name("checkpoint.partial")).rename(path)
    return path


def _engine(folder: Path, checkpoint: Path, shape: str) -> Path:
    """Ours as one would choose it: int4 with an int8 vision tower, the small network in float32."""
    path = folder / "engine"
    if path.exists():
        return path
    print(f"writing {path}", file=sys.stderr)
    source = open_checkpoint(str(checkpoint))
    if shape == "tiny":
        export_engine(source, path, precision="fp32", block_size=32)
    else:
        limits = synthetic_vision_ranges(source, folder)
        block_size = default_block_size(source.text, "int4")
        export_engine(source, path, precision="int4", block_size=block_size, vision_limits=limits)
    return path


def _contest(
    chosen: argparse.Namespace, pair: Pair, folder: Path, job: Path, engine: Path
) -> Contest:
    kind = PEERS[pair.peer]
    environments = (chosen.environments or chosen.folder).resolve()
    level = LEVELS[pair.level]
    log = folder / f"{pair.peer}.log"
    log.unlink(missing_ok=True)

    def start_theirs() -> PeerProcess:
        try:
            python = environment_python(environments, kind.environment, level)
        except subprocess.CalledProcessError:
            raise PeerFailure(f"pip could not make the environment '{kind.environment}'") from None
        files = folder / kind.environment
        arguments = str(job), str(files), kind.variant
        return PeerProcess(python, kind.module, arguments, log)

    return Contest(
        pair=pair,
        start_ours=partial(
            PeerProcess,
            Path(sys.executable),
            "ours",
            (str(job), str(engine), ""),
            folder / "ours.log",
        ),
        start_theirs=start_theirs,
        repeat=chosen.repeat,
        slices=chosen.slices,
        engine=engine,
        scan=SCAN,
        threads=chosen.threads,
        cache_home=folder / "cache",
        depths=tuple(chosen.depths),
    )


def _introduce(contest: Contest) -> bool:
    """Let both say who they are, and convert the weights before anything is timed."""
    pair = contest.pair
    try:
        with contest.start_ours() as ours:
            pair.about_ours = ours.ask("about")["text"]
            ours.ask("load")  # packs the weights
        with contest.start_theirs() as theirs:
            pair.about = theirs.ask("about")["text"]
            theirs.ask("open")
    except PeerFailure as reason:
        pair.cannot["everything"] = str(reason)
        return False
    pair.cannot.pop("everything", None)
    return True


if __name__ == "__main__":
    main()
