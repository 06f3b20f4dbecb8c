"""The job of all peers: our slices, our prompt and our tokens, as plain data."""

from pathlib import Path

import numpy as np
from comparisons.worker import Job, Segment

from edge_medgemma.runtime.generation.prompt import Chunk, PromptBuilder
from edge_medgemma.runtime.generation.tokenizer import Tokenizer
from edge_medgemma.runtime.manifest import load_manifest
from edge_medgemma.runtime.slicing.sampling import sample_slices
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.windows import render_stack
from edge_medgemma.runtime.triage.protocol import load_protocol
from edge_medgemma.runtime.triage.scoring.log_odds import AnswerTokens

FINDINGS = (
    "an intracranial hemorrhage",
    "a mass effect or midline shift",
    "a skull fracture",
    "an acute infarct",
    "hydrocephalus",
    "a subdural fluid collection",
    "a sinus opacification",
    "an orbital injury",
)
QUESTION = "Based on the slices provided above, is there {finding}? Answer yes or no."
FOLLOW_UP = "a foreign body"
REPORT_REQUEST = "Write a short report of the findings."
REPORT_TOKENS = 64


def write_job(
    folder: Path, checkpoint: Path, engine: Path, scan: Path, slices: int, threads: int
) -> Job:
    """Write what the peers are asked: slices of a head CT, eight findings, a report, one more.

    `engine` was exported from `checkpoint`; its tokenizer and chat template make the token ids.
    """
    manifest = load_manifest(engine)
    tokenizer = Tokenizer(engine / "tokenizer.json", manifest.tokens)
    builder = PromptBuilder.open(engine, tokenizer, manifest)
    instruction = load_protocol("head_ct").instruction
    answers = AnswerTokens.of(tokenizer)
    job = Job(
        checkpoint=str(checkpoint),
        threads=threads,
        instruction=instruction,
        prefix=_segments(builder.prefix(instruction, slices), manifest.tokens.image),
        questions=tuple(
            builder.question(QUESTION.format(finding=finding)) for finding in (*FINDINGS, FOLLOW_UP)
        ),
        report=builder.question(REPORT_REQUEST),
        report_tokens=REPORT_TOKENS,
        yes=answers.yes,
        no=answers.no,
        slices=slices,
        image_size=manifest.vision.image_size,
    )
    job.save(folder, _pixels(scan, slices))
    return job


def _segments(chunks: tuple[Chunk, ...], image_token: int) -> tuple[Segment, ...]:
    """Text and slices apart; neighbouring texts of two chunks become one."""
    ids = [i for chunk in chunks for i in chunk.ids]
    segments: list[Segment] = []
    images = 0
    start = 0
    for end in range(1, len(ids) + 1):
        is_image = ids[start] == image_token
        if end < len(ids) and (ids[end] == image_token) == is_image:
            continue
        segments.append(Segment(tuple(ids[start:end]), images if is_image else None))
        images += is_image
        start = end
    return tuple(segments)


def _pixels(scan: Path, slices: int) -> np.ndarray:
    """[slices, rows, columns, 3] uint8, windowed as `triage` does it."""
    series = find_series(scan).series[0]
    return render_stack(read_volume(series, sample_slices(series.shape[0], slices))).pixels
