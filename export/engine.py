"""From a checkpoint to an engine directory: graphs, weights, embedding, tokenizer, manifest."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from edge_medgemma.export.checkpoint import Checkpoint
from edge_medgemma.export.decoder import DecoderWriter
from edge_medgemma.export.dialect import Dialect
from edge_medgemma.export.embedding import embedding_payloads
from edge_medgemma.export.graph import GraphBuilder
from edge_medgemma.export.ort_dialect import OrtDialect
from edge_medgemma.export.tensor_names import EMBEDDING
from edge_medgemma.export.vision import VisionWriter
from edge_medgemma.export.weights import Payload, Storage
from edge_medgemma.export.writer import data_bytes, write_bytes, write_data
from edge_medgemma.runtime.errors import EngineError, ResourceError
from edge_medgemma.runtime.files import new_directory
from edge_medgemma.runtime.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    Demonstration,
    FileRecord,
    Manifest,
    Precision,
    Source,
    dump_manifest,
)

BLOCK_SIZES = (32, 64, 128)
"""Sizes that onnxruntime's and TensorRT's int4 kernels both take."""

LICENCE = "Health AI Developer Foundations Terms of Use"
DEMONSTRATION_LICENCE = "Apache-2.0"
"""A demonstration network is trained by this project, from nothing; no published weights are in it."""
TERMS_URL = "https://developers.google.com/health-ai-developer-foundations/terms"

Progress = Callable[[int, int], None]
"""Called with the bytes written so far and the bytes there will be."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Kind of weights of each part of an engine."""

    decoder: str
    head: str
    embedding: str
    vision: str


RECIPES = {
    "fp32": Recipe("fp32", "fp32", "fp32", "fp32"),
    "int8": Recipe("int8", "int8", "int8", "fp32"),
    "int4": Recipe("int4", "int8", "int8", "fp32"),
}
"""By name of --weights. Head, embedding and vision lose most at 4 bits, so none goes below 8."""


def export_engine(
    checkpoint: Checkpoint,
    destination: Path,
    *,
    weights: str,
    block_size: int,
    demonstration: Demonstration | None = None,
    on_progress: Progress | None = None,
) -> Manifest:
    """Write the engine directory `destination`, which must not exist yet, and return its manifest.

    `weights` names a recipe; `block_size` rows share a scale where it quantises.

    Raises:
        EngineError: an unknown recipe or block size.
        CheckpointError: a weight is not finite or its size does not fit the blocks.
        ResourceError: `destination` exists, or the disk is full; nothing is left behind.
    """
    recipe = _recipe(weights, block_size)
    with new_directory(destination) as folder:
        notice = _notice(checkpoint, recipe, demonstration)
        engine = _EngineWriter(checkpoint, folder, recipe, block_size, notice, on_progress)
        files = engine.write()
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            architecture="gemma3",
            text=checkpoint.text,
            vision=checkpoint.vision,
            tokens=checkpoint.tokens,
            precision=engine.precision(),
            source=Source(
                kind=checkpoint.kind,
                name=checkpoint.name,
                revision=checkpoint.revision,
                sha256=checkpoint.fingerprint(),
                adapter_sha256=checkpoint.adapter_sha256,
            ),
            tools={name: version(name) for name in ("edge-medgemma", "numpy", "onnx-ir")},
            files=dict(sorted(files.items())),
            licence=_licence(checkpoint, demonstration),
            demonstration=demonstration,
        )
        write_bytes(folder / MANIFEST_NAME, dump_manifest(manifest).encode())
    return manifest


class _EngineWriter:
    """Writes every file of one engine but the manifest."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        folder: Path,
        recipe: Recipe,
        block_size: int,
        notice: str,
        on_progress: Progress | None,
    ) -> None:
        self._checkpoint = checkpoint
        self._folder = folder
        self._recipe = recipe
        self._block_size = block_size
        self._notice = notice
        self._on_progress = on_progress
        self._done = 0
        self._total = 0

    def precision(self) -> Precision:
        recipe = self._recipe
        kinds = (recipe.decoder, recipe.head, recipe.vision)
        return Precision(
            decoder=recipe.decoder,
            head=recipe.head,
            embedding=recipe.embedding,
            vision=recipe.vision,
            block_size=0 if set(kinds) == {"fp32"} else self._block_size,
        )

    def write(self) -> dict[str, FileRecord]:
        """Write the files; their records by name."""
        checkpoint, recipe = self._checkpoint, self._recipe
        ops: Dialect = OrtDialect()
        vision = VisionWriter(checkpoint, ops, self._storage(recipe.vision)).write()
        decoder = DecoderWriter(
            checkpoint, ops, self._storage(recipe.decoder), self._storage(recipe.head)
        ).write()
        contents: dict[str, list[Payload]] = {
            "vision.data": vision.payloads,
            "decoder.data": decoder.payloads,
        }
        embedding = embedding_payloads(checkpoint.tensors[EMBEDDING], recipe.embedding)
        contents |= {name: [payload] for name, payload in embedding.items()}
        self._total = sum(data_bytes(payloads) for payloads in contents.values())
        self._require_space()
        files = {
            "vision.onnx": self._graph(vision, "vision"),
            "decoder.onnx": self._graph(decoder, "decoder"),
        }
        for name, payloads in contents.items():
            files[name] = write_data(self._folder / name, payloads, self._advance)
        for name, text in self._texts().items():
            files[name] = write_bytes(self._folder / name, text)
        return files

    def _require_space(self) -> None:
        free = shutil.disk_usage(self._folder).free
        if free < self._total:
            raise ResourceError(
                f"the engine takes {self._total / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
                "choose another disk or --weights int4"
            )

    def _graph(self, graph: GraphBuilder, name: str) -> FileRecord:
        return write_bytes(self._folder / f"{name}.onnx", graph.serialize(f"{name}.data"))

    def _storage(self, kind: str) -> Storage:
        return Storage(kind, 0 if kind == "fp32" else self._block_size)

    def _advance(self, count: int) -> None:
        self._done += count
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)

    def _texts(self) -> Mapping[str, bytes]:
        checkpoint = self._checkpoint
        return {
            "tokenizer.json": checkpoint.tokenizer_json,
            "chat_template.jinja": checkpoint.chat_template.encode(),
            "NOTICE": self._notice.encode(),
        }


def _recipe(weights: str, block_size: int) -> Recipe:
    if weights not in RECIPES:
        raise EngineError(f"unknown weights '{weights}'; expected one of {', '.join(RECIPES)}")
    if block_size not in BLOCK_SIZES:
        raise EngineError(
            f"block size {block_size} has no kernel; expected one of {', '.join(map(str, BLOCK_SIZES))}"
        )
    return RECIPES[weights]


def _licence(checkpoint: Checkpoint, demonstration: Demonstration | None) -> str:
    if demonstration is not None:
        return DEMONSTRATION_LICENCE
    return "none: random weights" if checkpoint.kind == "synthetic" else LICENCE


def _notice(checkpoint: Checkpoint, recipe: Recipe, demonstration: Demonstration | None) -> str:
    if demonstration is not None:
        return (
            f"{checkpoint.name}: {demonstration.notice}.\n"
            "Its weights were trained by this project and contain nothing of MedGemma.\n"
        )
    if checkpoint.kind == "synthetic":
        return (
            f"{checkpoint.name}: random weights in the shape of a published model, for measuring "
            "devices.\nThey contain nothing of MedGemma and know nothing of medicine.\n"
        )
    changes = (
        f"decoder {recipe.decoder}, head {recipe.head}, embedding {recipe.embedding}, "
        f"vision {recipe.vision}"
    )
    adapter = "; a LoRA adapter was merged" if checkpoint.adapter_sha256 else ""
    return (
        "HAI-DEF is provided under and subject to the Health AI Developer Foundations Terms of "
        f"Use found at {TERMS_URL}\n\n"
        "The weights in this directory are a Model Derivative: they were modified from\n"
        f"{checkpoint.name}{f' at {checkpoint.revision}' if checkpoint.revision else ''} by "
        "edge-medgemma.\n"
        f"Modifications: converted to ONNX; weights stored as {changes}{adapter}.\n"
        "The use restrictions of section 3.2 of the Terms apply to whoever receives them.\n"
        "Not a medical device: for research, not for clinical use.\n"
    )
