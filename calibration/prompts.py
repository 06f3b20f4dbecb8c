"""Slices put to the model as a triage would: instruction, slices, then every question at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.prose import calibration_prose
from edge_medgemma.calibration.slices import CalibrationSlice
from edge_medgemma.runtime.errors import ProtocolError
from edge_medgemma.runtime.generation.embedding import Embedding
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.masks import NO_BRANCH, NO_IMAGE, TokenMeta, additive_mask
from edge_medgemma.runtime.triage.protocol import Finding, Protocol, builtin_protocols
from edge_medgemma.runtime.triage.scoring.questions import assessed_findings

PROMPT_TOKENS = 1200
"""A prompt takes as many slices of one series as fit in this, and at least one."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One sequence of tokens and what is known of each."""

    ids: tuple[int, ...]
    rows: TokenMeta
    slices: tuple[int, ...]
    """Numbers of the slices that are its images, in order"""
    questions: tuple[Finding, ...]
    logit_rows: NDArray[np.int64]
    """[questions]: rows whose next token is the answer"""


def build_prompts(
    engine: Engine, slices: Sequence[CalibrationSlice], numbers: Sequence[int]
) -> tuple[Prompt, ...]:
    """Prompts over `slices`, which are called `numbers`; one series each."""
    room = max(1, PROMPT_TOKENS // (engine.manifest.vision.tokens_per_image + 12))
    prompts = []
    for _, group in groupby(zip(numbers, slices, strict=True), key=lambda item: item[1].series):
        members = list(group)
        for start in range(0, len(members), room):
            part = members[start : start + room]
            prompts.append(_prompt(engine, part[0][1], tuple(number for number, _ in part)))
    return tuple(prompts)


def prose_prompt(engine: Engine) -> Prompt:
    """Medical prose, so that the second moments are those of text as well; nothing is asked."""
    text = "\n\n".join(calibration_prose())
    ids = [engine.manifest.tokens.bos, *engine.tokenizer.encode(text)]
    ids = ids[: engine.manifest.text.max_positions]
    nothing = np.zeros(len(ids), np.int64)
    rows = TokenMeta(np.arange(len(ids)), nothing + NO_IMAGE, nothing, nothing + NO_BRANCH)
    return Prompt(tuple(ids), rows, (), (), np.zeros(0, np.int64))


def feeds_of(
    prompt: Prompt, engine: Engine, embedding: Embedding, features: NDArray[np.float32]
) -> dict[str, NDArray[np.generic]]:
    """Inputs of decoder.onnx, but for the caches, for the whole prompt in one pass.

    Args:
        prompt: of this engine
        engine: gives shapes and ids
        embedding: its table
        features: [slices of the set, tokens_per_image, hidden]
    """
    text = engine.manifest.text
    embeddings = embedding.rows(prompt.ids)
    images = np.flatnonzero(prompt.rows.images != NO_IMAGE)
    if len(images):
        embeddings[images] = features[list(prompt.slices)].reshape(len(images), -1)
    return one_pass_feeds(prompt.rows, embeddings, prompt.logit_rows, text.sliding_window)


def one_pass_feeds(
    rows: TokenMeta,
    embeddings: NDArray[np.float32],
    logit_rows: NDArray[np.int64],
    window: int,
) -> dict[str, NDArray[np.generic]]:
    """Inputs of decoder.onnx, but for the caches, for tokens `rows` that are read in one pass.

    Args:
        rows: the S tokens
        embeddings: [S, hidden]
        logit_rows: [R], tokens whose logits are wanted
        window: `text.sliding_window`
    """
    count = len(rows)
    return {
        "embeddings": embeddings[None],
        "position_ids": rows.positions[None],
        "mask_global": additive_mask(rows, rows, None),
        "mask_local": additive_mask(rows, rows, window),
        "seqlen_global": np.array([count - 1], np.int32),
        "total_global": np.array(count, np.int32),
        "seqlen_local": np.array([count - 1], np.int32),
        "total_local": np.array(count, np.int32),
        "logit_rows": logit_rows,
        "use_int8_caches": np.array(False),
        "use_draft_head": np.array(False),
    }


def protocol_for(engine: Engine, one: CalibrationSlice) -> Protocol:
    """The built-in protocol that a triage would take, or one of the same modality."""
    protocols = [
        p for p in builtin_protocols() if p.is_automatic and assessed_findings(p, engine.manifest)
    ]
    if not protocols:
        raise ProtocolError("the engine may be asked about none of the built-in protocols")

    def distance(protocol: Protocol) -> tuple[bool, bool]:
        return one.modality not in protocol.modalities, one.body_part not in protocol.body_parts

    return min(protocols, key=distance)


def _prompt(engine: Engine, one: CalibrationSlice, numbers: tuple[int, ...]) -> Prompt:
    protocol = protocol_for(engine, one)
    findings = assessed_findings(protocol, engine.manifest)
    chunks = engine.prompt.prefix(protocol.instruction, len(numbers))
    ids = [i for chunk in chunks for i in chunk.ids]
    questions = [engine.prompt.question(finding.question) for finding in findings]
    lengths = [len(question) for question in questions]
    positions = [np.arange(len(ids)), *(len(ids) + np.arange(n) for n in lengths)]
    branches = np.repeat([NO_BRANCH, *range(len(questions))], [len(ids), *lengths])
    every_id = np.array([*ids, *(i for question in questions for i in question)], np.int64)
    rows = TokenMeta(
        np.concatenate(positions).astype(np.int64),
        _image_numbers(every_id, engine),
        np.zeros(len(every_id), np.int64),
        branches.astype(np.int64),
    )
    ends = len(ids) + np.cumsum(lengths) - 1
    return Prompt(tuple(every_id.tolist()), rows, numbers, findings, ends.astype(np.int64))


def _image_numbers(ids: NDArray[np.int64], engine: Engine) -> NDArray[np.int64]:
    numbers = np.full(len(ids), NO_IMAGE, np.int64)
    where = np.flatnonzero(ids == engine.manifest.tokens.image)
    numbers[where] = np.arange(len(where)) // engine.manifest.vision.tokens_per_image
    return numbers
