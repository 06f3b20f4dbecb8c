"""`edge-medgemma ask`: a free question about a scan."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from edge_medgemma.runtime.backends.select import Providers
from edge_medgemma.runtime.commands.options import (
    cache_size_option,
    engine_option,
    modality_option,
    no_cache_option,
    open_scan_cache,
    protocol_option,
    provider_option,
    series_option,
    slices_option,
    threads_option,
    trace_option,
)
from edge_medgemma.runtime.commands.progress import stage_progress
from edge_medgemma.runtime.commands.sanitize import printable
from edge_medgemma.runtime.errors import ProtocolError
from edge_medgemma.runtime.generation.answer_pieces import AnswerPiece
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.sampling import Sampling
from edge_medgemma.runtime.reporting.labels import sentence
from edge_medgemma.runtime.slicing.volume import Modality
from edge_medgemma.runtime.store.scan_cache import ScanCache
from edge_medgemma.runtime.tracing.spans import SpanRecorder
from edge_medgemma.runtime.tracing.trace_file import write_trace
from edge_medgemma.runtime.triage.answer_schema import findings_schema, load_schema
from edge_medgemma.runtime.triage.chat_session import (
    FINISH_REASON_LABELS,
    ChatSession,
    open_scan,
)
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.protocol import Protocol
from edge_medgemma.runtime.triage.scoring.grounds import RANDOM_WEIGHTS, engine_notice
from edge_medgemma.runtime.triage.scoring.question_scope import require_question_in_scope
from edge_medgemma.runtime.triage.scoring.questions import REASONING_TOKENS

FINDINGS = "findings"
"""The built-in schema, made from the protocol."""

NO_ANSWER = "note: no answer; the model used up --max-tokens in reasoning or had nothing to say"


@click.command(epilog='Example: edge-medgemma ask scan/ "Is there free fluid?"')
@click.argument("scan", type=click.Path(path_type=Path))
@click.argument("question")
@engine_option
@protocol_option
@series_option
@modality_option
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
    protocol: Protocol | None,
    series_uid: str | None,
    modality: Modality | None,
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
    if json_schema and (show_thinking or timings):
        raise click.UsageError("--json-schema takes neither --show-thinking nor --timings")
    schema = load_schema(Path(json_schema)) if json_schema not in (None, FINDINGS) else None
    scan_cache = open_scan_cache(no_cache, cache_gb)
    options = TriageOptions(protocol, series_uid, slices, modality=modality, scan_cache=scan_cache)
    sampling = Sampling(temperature=temperature, seed=seed)
    recorder = SpanRecorder()
    with recorder.span("open"):
        engine = Engine.open(
            engine_directory, threads=threads, providers=providers, recorder=recorder
        )
    with engine:
        require_question_in_scope(question, engine.manifest.scope)
        ids = engine.prompt.question(question)  # one that may not be asked costs no prefill
        with stage_progress() as progress:
            session = open_scan(engine, scan, options, progress, len(ids))
        _print_notes(session, scan_cache)
        if json_schema == FINDINGS and not session.protocol.findings:
            raise ProtocolError("no protocol fits this scan; name its findings with --protocol")
        if json_schema:
            allowed = schema or findings_schema(session.protocol, session.slices)
            answer = session.ask_json(question, allowed, sampling, max_tokens)
            if engine.manifest.has_random_weights:
                answer = {"notice": RANDOM_WEIGHTS.detail, "answer": answer}
            # ASCII alone: an escape sequence in a text of the model's stays escaped.
            click.echo(json.dumps(answer))
            return
        pieces = []
        with recorder.span("generate"):
            for piece in session.ask(question, sampling, max_tokens):
                pieces.append(piece)
                recorder.step(f"token {piece.tokens}")
                if not piece.is_thought or show_thinking:
                    click.secho(printable(piece.text), nl=False, dim=piece.is_thought)
        _print_ending(pieces)
        if timings:
            click.echo(_timing_words(session, pieces), err=True)
    if trace is not None:
        write_trace(trace, (*recorder.spans, *session.spans))


def _print_notes(session: ChatSession, scan_cache: ScanCache | None) -> None:
    """Problems of the scan, of the scan cache and the engine's notice about itself."""
    notes = [sentence(problem.detail) for problem in session.problems]
    if scan_cache is not None and scan_cache.write_error:
        notes.append(scan_cache.write_error)
    notes.append(engine_notice(session.engine.manifest))
    for note in filter(None, notes):
        click.echo(f"note: {printable(note)}", err=True)


def _print_ending(pieces: Sequence[AnswerPiece]) -> None:
    """End the line of the answer, and say why it is empty or not whole."""
    click.echo()
    if not any(piece.text and not piece.is_thought for piece in pieces):
        click.echo(NO_ANSWER, err=True)
    elif pieces[-1].ending in FINISH_REASON_LABELS:
        click.echo(f"note: {FINISH_REASON_LABELS[pieces[-1].ending]}", err=True)


def _timing_words(session: ChatSession, pieces: Sequence[AnswerPiece]) -> str:
    prefill_s = session.timings_s["prefill"]
    if session.cache_hits.prefix:
        words = f"cached slices loaded in {prefill_s:.2f} s"
    else:
        vision_s = session.timings_s["vision"] / session.slices
        prefill_rate = session.prefix.length / prefill_s
        words = f"vision {vision_s:.2f} s a slice, prefill {prefill_rate:.1f} tokens/s"
    if not pieces[-1].tokens:
        return words
    first, last = pieces[0], pieces[-1]
    words += f", first token after {first.elapsed_s:.2f} s"
    if last.elapsed_s > first.elapsed_s:
        rate = (last.tokens - first.tokens) / (last.elapsed_s - first.elapsed_s)
        words += f", then {rate:.1f} tokens/s up to the {last.tokens}th"
    return words
