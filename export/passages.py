"""What a checkpoint is read with where no slices are given: prose and phantoms, nobody's data."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.phantoms.drawing import draw_phantom
from edge_medgemma.calibration.phantoms.volume import to_volume
from edge_medgemma.calibration.prose import calibration_prose, held_out_prose
from edge_medgemma.export.checkpoint.checkpoint import Checkpoint
from edge_medgemma.export.checkpoint.tensor_names import EMBEDDING
from edge_medgemma.export.float_vision import float_features
from edge_medgemma.export.quantisation.float_decoder import Passage
from edge_medgemma.runtime.generation.images import to_pixel_values
from edge_medgemma.runtime.generation.masks import NO_BRANCH, NO_IMAGE, TokenMeta
from edge_medgemma.runtime.generation.prompt import PromptBuilder
from edge_medgemma.runtime.generation.tokenizer import Tokenizer
from edge_medgemma.runtime.slicing.windows import render_stack
from edge_medgemma.runtime.triage.protocol import load_protocol

Array = NDArray[np.float32]

PROTOCOL = "head_ct"
"""Gives instruction and questions; the phantoms are heads."""

PHANTOM_SEEDS = (7_000_000, 7_000_001)
"""One to look at and one to hold out."""

SLICES = 2
"""Slices of each phantom"""

ANSWERS = (" Yes", " No")


def builtin_passages(checkpoint: Checkpoint, scratch: Path) -> tuple[Passage, ...]:
    """Prose and phantom scans as a triage shows them, and as much again that is held out.

    Args:
        checkpoint: gives tokenizer, template, embeddings and vision tower
        scratch: takes the float32 tower for as long as the phantoms are encoded

    Raises:
        ResourceError: the disk is full or `scratch` cannot be written.
    """
    path = scratch / "tokenizer.json"
    path.write_bytes(checkpoint.tokenizer_json)
    tokenizer = Tokenizer(path, checkpoint.tokens)
    builder = PromptBuilder(
        tokenizer,
        checkpoint.tokens,
        checkpoint.vision.tokens_per_image,
        checkpoint.chat_template,
    )
    stacks = [_phantom_pixels(seed) for seed in PHANTOM_SEEDS]
    pixel_values = [to_pixel_values(stack, checkpoint.vision) for stack in stacks]
    features = float_features(checkpoint, np.concatenate(pixel_values), scratch)
    passages = []
    for number, prose in enumerate((calibration_prose(), held_out_prose())):
        ids = [checkpoint.tokens.bos, *tokenizer.encode("\n\n".join(prose))]
        passages.append(_passage(checkpoint, ids, None, is_held_out=number == 1))
        ids = _scan_ids(builder)
        own = features[number * SLICES : (number + 1) * SLICES]
        passages.append(_passage(checkpoint, ids, own, is_held_out=number == 1))
    return tuple(passages)


def _phantom_pixels(seed: int) -> NDArray[np.uint8]:
    """[SLICES, rows, columns, 3]"""
    phantom = draw_phantom(seed, count=2 * SLICES)
    middle = np.arange(SLICES // 2, SLICES // 2 + SLICES)
    return render_stack(to_volume(phantom, middle)).pixels


def _scan_ids(builder: PromptBuilder) -> list[int]:
    """Instruction, slices, and every question with both its answers, one after the other."""
    protocol = load_protocol(PROTOCOL)
    ids = [i for chunk in builder.prefix(protocol.instruction, SLICES) for i in chunk.ids]
    for finding in protocol.findings:
        for answer in ANSWERS:
            ids += [*builder.question(finding.question), *builder.tokenizer.encode(answer)]
    return ids


def _passage(
    checkpoint: Checkpoint, ids: Sequence[int], features: Array | None, *, is_held_out: bool
) -> Passage:
    ids = tuple(ids[: checkpoint.text.max_positions])
    table = checkpoint.tensors[EMBEDDING]
    embeddings = np.empty((len(ids), table.shape[1]), np.float32)
    for row, token in enumerate(ids):
        embeddings[row] = table.read(slice(token, token + 1))[0]  # copied: it may be part of more
    with np.errstate(over="ignore"):  # `FloatDecoder` refuses what is no number
        embeddings *= np.float32(checkpoint.text.embed_scale)
    images = np.full(len(ids), NO_IMAGE, np.int64)
    places = np.flatnonzero(np.array(ids) == checkpoint.tokens.image)
    if features is not None:
        images[places] = np.arange(len(places)) // checkpoint.vision.tokens_per_image
        embeddings[places] = features.reshape(-1, features.shape[-1])[: len(places)]
    nothing = np.zeros(len(ids), np.int64)
    rows = TokenMeta(np.arange(len(ids)), images, nothing, np.full(len(ids), NO_BRANCH))
    first = int(places[-1]) + 2 if len(places) else 0
    return Passage(ids, rows, embeddings, is_held_out, np.arange(first, len(ids) - 1))
