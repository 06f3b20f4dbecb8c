"""Export of an int8 or int4 engine without slices: rounded by what the float model does with prose
and phantoms, measured on others of the same kind, and kept only if the loss is accepted."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.loss.quantization_error import decoder_logits
from edge_medgemma.calibration.loss.text_loss import TextLoss, text_loss
from edge_medgemma.calibration.passes.layer_runner import GraphStages
from edge_medgemma.calibration.search.gram import Gram
from edge_medgemma.export.calibrated_export import Budget, int8_choices
from edge_medgemma.export.checkpoint.checkpoint import Checkpoint
from edge_medgemma.export.engine import Progress, write_engine
from edge_medgemma.export.graphs.weights import Matrix, stacked
from edge_medgemma.export.graphs.writer import write_bytes
from edge_medgemma.export.passages import builtin_passages
from edge_medgemma.export.quantisation.float_decoder import FloatDecoder, Passage
from edge_medgemma.export.quantisation.int4_search import Search
from edge_medgemma.export.quantisation.quant_scheme import INT4_LAYERS, inputs_of, plan_export
from edge_medgemma.export.reference_outputs import (
    EngineCheck,
    add_reference_outputs,
    check_engine,
    cpu_engine,
)
from edge_medgemma.export.target import CPU, Target
from edge_medgemma.runtime.commands.progress import OnStage
from edge_medgemma.runtime.files import new_directory
from edge_medgemma.runtime.generation.embedding import Embedding
from edge_medgemma.runtime.generation.masks import NO_IMAGE
from edge_medgemma.runtime.manifest import MANIFEST_NAME, Manifest, dump_manifest, load_manifest
from edge_medgemma.runtime.parity import HELD_OUT_TEXT

Array = NDArray[np.float32]

AUTOMATIC = "auto"
"""Precision: int4, with as many layers in int8 as an accepted loss takes."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The float model on the passages that are held out."""

    passages: tuple[Passage, ...]
    logits: Array
    """[positions, vocabulary]"""


def export_measured(
    checkpoint: Checkpoint,
    destination: Path,
    *,
    precision: str,
    block_size: int,
    budget: Budget,
    target: Target = CPU,
    with_reference_outputs: bool = False,
    check: EngineCheck | None = None,
    on_stage: OnStage | None = None,
) -> tuple[Manifest, TextLoss]:
    """Write the engine directory `destination` with its measured loss in the manifest.

    Args:
        checkpoint: to export
        destination: of the engine; a scratch folder lies in the unfinished one for as long as this runs
        precision: `auto`, `int8` or `int4`
        block_size: inputs that share a scale
        budget: the loss that is accepted; `auto` keeps to it by layers in int8
        target: what runs it
        with_reference_outputs: add the outputs by which a device is judged
        check: of the engine whose loss is accepted; what it raises leaves nothing behind
        on_stage: called with what is done now, and how much of how much

    Raises:
        EngineError: the loss is above the budget; nothing is left behind.
        CheckpointError: a weight is not finite or its size does not fit the blocks.
        ResourceError: `destination` exists, or the disk is full; nothing is left behind.
    """
    with (
        new_directory(destination) as folder,
        tempfile.TemporaryDirectory(dir=folder, prefix=".scratch.") as name,
    ):
        scratch = Path(name)
        search = Search(scratch, _not_read)
        reference = _read(checkpoint, scratch, precision, block_size, target, on_stage)
        escalates = precision == AUTOMATIC or budget.target_kl is not None
        for weights, int8_layers in _choices(precision, checkpoint.text.layers, escalates):
            export_plan = plan_export(
                checkpoint, weights, block_size, None, int8_layers, target, search=search
            )
            manifest = write_engine(export_plan, folder, None, _megabytes(on_stage))
            with cpu_engine(export_plan, folder) as measured:
                loss = measure_text_loss(measured, reference, on_stage)
                if with_reference_outputs:
                    manifest = add_reference_outputs(measured, folder, manifest, None)
            if loss.kl_nats <= budget.limit:
                break
        budget.check(loss.kl_nats, weights, f"on {HELD_OUT_TEXT}")
        check_engine(check, export_plan, folder)
        record = {
            "loss": asdict(loss),
            "measured_on": HELD_OUT_TEXT,
            "int8_layers": sorted(int8_layers),
        }
        manifest = replace(manifest, calibration=record)
        write_bytes(folder / MANIFEST_NAME, dump_manifest(manifest).encode())
    return manifest, loss


def measure_text_loss(
    engine: Path, reference: Reference, on_stage: OnStage | None = None
) -> TextLoss:
    """The loss of a CPU engine directory against the float model."""
    manifest = load_manifest(engine)
    embedding = Embedding(engine, manifest)
    prompts = []
    for passage in reference.passages:
        embeddings = embedding.rows(passage.ids)
        images = np.flatnonzero(passage.rows.images != NO_IMAGE)
        embeddings[images] = passage.embeddings[images]
        prompts.append(passage.feeds(embeddings, manifest.text.sliding_window))
    stages = GraphStages(engine, "decoder")

    def on_layer(layer: int, streams: Sequence[Array]) -> None:
        if on_stage is not None:
            on_stage("measuring", layer + 1, len(stages))

    logits = decoder_logits(manifest, stages, prompts, None, on_layer)
    next_ids = np.concatenate([passage.next_ids for passage in reference.passages])
    return text_loss(reference.logits, logits, next_ids)


def _read(
    checkpoint: Checkpoint,
    scratch: Path,
    precision: str,
    block_size: int,
    target: Target,
    on_stage: OnStage | None,
) -> Reference:
    """Run the float model once; the integers of an int4 engine are then in `scratch`."""
    weights = "int4" if precision == AUTOMATIC else precision
    found: dict[str, Gram] = {}
    search = Search(scratch, lambda name: found[inputs_of(name)])
    formats = plan_export(checkpoint, weights, block_size, target=target, search=search).decoder
    layers = checkpoint.text.layers
    passages = builtin_passages(checkpoint, scratch)
    decoder = FloatDecoder(checkpoint, passages, scratch)
    for layer, grams in enumerate(decoder.layers()):
        found = grams
        for matrix in _matrices(checkpoint, layer) if weights == "int4" else ():
            quantizer = formats(matrix.name).quantizer
            assert quantizer is not None
            quantizer(matrix.read(slice(0, matrix.outputs), slice(0, matrix.inputs)))
        if on_stage is not None:
            on_stage("reading", layer + 1, layers)
    held_out = tuple(passage for passage in passages if passage.is_held_out)
    return Reference(held_out, decoder.logits())


def _matrices(checkpoint: Checkpoint, layer: int) -> Iterator[Matrix]:
    """What a layer of an int4 engine multiplies by in 4 bits."""
    for leaf, parts in INT4_LAYERS.items():
        tensors = (checkpoint.tensors[f"text.layers.{layer}.{part}.weight"] for part in parts)
        yield stacked(f"text.layers.{layer}.{leaf}", *tensors)


def _choices(precision: str, layers: int, escalates: bool) -> Iterator[tuple[str, frozenset[str]]]:
    """Weights and the layers that are int8 all the same, the smallest engine first."""
    if escalates and precision != "int8":
        *some, _ = int8_choices(layers)
        yield from (("int4", chosen) for chosen in some)
        yield "int8", frozenset()
    else:
        yield precision, frozenset()


def _megabytes(on_stage: OnStage | None) -> Progress | None:
    if on_stage is None:
        return None
    return lambda done, total: on_stage("writing, MB", done // 10**6, total // 10**6)


def _not_read(name: str) -> Gram:
    raise AssertionError(f"no integers were searched for '{name}'")
