"""`edge-medgemma ask`: a free question about a scan."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from edge_medgemma.runtime.backends.select import Providers
from edge_medgemma.runtime.commands.options import (
    cache_size_option,
    engine_option,
    no_cache_option,
    open_scan_cache,
    provider_option,
    slices_option,
    threads_option,
    trace_option,
)
from edge_medgemma.runtime.commands.progress import stage_progress
from edge_medgemma.runtime.commands.sanitize import printable
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.sampling import Sampling
from edge_medgemma.runtime.reporting.labels import sentence
from edge_medgemma.runtime.tracing.spans import SpanRecorder
from edge_medgemma.runtime.tracing.trace_file import write_trace
from edge_medgemma.runtime.triage.answer_schema import findings_schema, load_schema
from edge_medgemma.runtime.triage.chat_session import (
    FINISH_REASON_LABELS,
    AnswerPiece,
    Conversation,
    open_scan,
)
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.protocol import load_protocol
from edge_medgemma.runtime.triage.questions import REASONING_TOKENS

FINDINGS = "findings"
"""The built-in schema, made from the protocol."""

NO_ANSWER = "note: no answer; the model used up --max-tokens in reasoning or had nothing to say"


@click.command(epilog='Example: edge-medgemma ask scan/ "Is there free fluid?"')
@click.argument("scan", type=click.Path(path_type=Path))
@click.argument("question")
@engine_option
@click.option(
    "--protocol", "protocol_name", default="auto", show_default=True, metavar="auto|NAME|FILE",
    help="Whose instruction opens the prompt; auto goes by modality and body part.",
)  # fmt: skip
@click.option(
    "--series",
    "series_uid",
    metavar="KEY",
    help="Look at this series only; 'inspect' prints the keys.",
)
@slices_option
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=REASONING_TOKENS, show_default=True,
    help="Longest answer, reasoning included.",
)  # fmt: skip
@click.option(
    "--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True,
    help="0 always takes the most likely word.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="For temperatures above 0.")
@click.option(
    "--json-schema", metavar="findings|FILE",
    help="Answer as JSON: one entry for each finding of the protocol, or by your own schema.",
)  # fmt: skip
@click.option("--show-thinking", is_flag=True, help="Also print the reasoning ahead of the answer.")
@click.option("--timings", is_flag=True, help="Also print how long each part took, on stderr.")
@no_cache_option
@cache_size_option
@provider_option
@threads_option
@trace_option
def command(
    scan: Path,
    question: str,
    engine_directory: Path,
    protocol_name: str,
    series_uid: str | None,
    slices: int | None,
    max_tokens: int,
    temperature: float,
    seed: int,
    json_schema: str | None,
    show_thinking: bool,
    timings: bool,
    no_cache: bool,
    cache_gb: float,
    providers: Providers,
    threads: int | None,
    trace: Path | None,
) -> None:
    """Ask a free question about a scan.

    SCAN is a folder of DICOM or NIfTI files, a .zip or .tar.gz of them, or one such file. The answer is a language model's:
    read it as a hint, never as a report.
    """
    protocol = None if protocol_name == "auto" else load_protocol(protocol_name)
    if json_schema and (show_thinking or timings):
        raise click.UsageError("--json-schema takes neither --show-thinking nor --timings")
    schema = load_schema(Path(json_schema)) if json_schema not in (None, FINDINGS) else None
    scan_cache = open_scan_cache(no_cache, cache_gb)
    options = TriageOptions(protocol, series_uid, slices, scan_cache=scan_cache)
    sampling = Sampling(temperature=temperature, seed=seed)
    recorder = SpanRecorder()
    with recorder.span("open"):
        engine = Engine.open(
            engine_directory, threads=threads, providers=providers, recorder=recorder
        )
    with engine:
        engine.prompt.question(question)  # a question that may not be asked costs no reading
        with stage_progress() as progress:
            conversation = open_scan(engine, scan, options, progress)
        for problem in conversation.problems:
            click.echo(f"note: {printable(sentence(problem.detail))}", err=True)
        if scan_cache is not None and scan_cache.write_error:
            click.echo(f"note: {printable(scan_cache.write_error)}", err=True)
        if engine.manifest.demonstration:
            click.echo(f"note: {printable(engine.manifest.demonstration.notice)}", err=True)
        if json_schema:
            wanted = schema or findings_schema(conversation.protocol, conversation.slices)
            # ASCII alone: an escape sequence in a text of the model's stays spelled out.
            click.echo(json.dumps(conversation.ask_json(question, wanted, sampling, max_tokens)))
            return
        pieces = []
        with recorder.span("generate"):
            for piece in conversation.ask(question, sampling, max_tokens):
                pieces.append(piece)
                recorder.step(f"token {piece.tokens}")
                if not piece.is_thought or show_thinking:
                    click.secho(printable(piece.text), nl=False, dim=piece.is_thought)
        click.echo()
        if not any(piece.text and not piece.is_thought for piece in pieces):
            click.echo(NO_ANSWER, err=True)
        elif pieces[-1].ending in FINISH_REASON_LABELS:
            click.echo(f"note: {FINISH_REASON_LABELS[pieces[-1].ending]}", err=True)
        if timings:
            click.echo(_timing_words(conversation, pieces), err=True)
    if trace is not None:
        write_trace(trace, (*recorder.spans, *conversation.spans))


def _timing_words(conversation: Conversation, pieces: Sequence[AnswerPiece]) -> str:
    prefill_s = conversation.timings_s["prefill"]
    if conversation.recalled.prefix:
        words = f"slices recalled in {prefill_s:.2f} s"
    else:
        vision_s = conversation.timings_s["vision"] / conversation.slices
        prefill_rate = conversation.prefix.length / prefill_s
        words = f"vision {vision_s:.2f} s a slice, prefill {prefill_rate:.1f} tokens/s"
    if not pieces[-1].tokens:
        return words
    first, last = pieces[0], pieces[-1]
    words += f", first token after {first.elapsed_s:.2f} s"
    if last.elapsed_s > first.elapsed_s:
        rate = (last.tokens - first.tokens) / (last.elapsed_s - first.elapsed_s)
        words += f", then {rate:.1f} tokens/s up to the {last.tokens}th"
    return words
