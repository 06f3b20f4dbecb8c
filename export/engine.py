"""An engine directory written from a checkpoint: graphs, weights, embedding, tokenizer, manifest."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from edge_medgemma.calibration.record import Calibration
from edge_medgemma.export.checkpoint.checkpoint import Checkpoint
from edge_medgemma.export.checkpoint.tensor_names import EMBEDDING
from edge_medgemma.export.graphs.decoder import Answers, DecoderWriter
from edge_medgemma.export.graphs.dialect import Dialect
from edge_medgemma.export.graphs.embedding import embedding_blobs
from edge_medgemma.export.graphs.graph import GraphBuilder
from edge_medgemma.export.graphs.mixed_precision import to_half
from edge_medgemma.export.graphs.ort_dialect import OrtCudaDialect, OrtDialect, OrtTokenDialect
from edge_medgemma.export.graphs.ort_head import drafted_head
from edge_medgemma.export.graphs.trt_dialect import TrtDialect
from edge_medgemma.export.graphs.vision import VisionWriter
from edge_medgemma.export.graphs.weights import WeightBlob
from edge_medgemma.export.graphs.writer import data_bytes, write_bytes, write_data
from edge_medgemma.export.quantisation.quant_scheme import (
    DRAFT,
    SHARED,
    ExportPlan,
    QuantScheme,
    plan_export,
)
from edge_medgemma.export.target import CPU, Target
from edge_medgemma.runtime.errors import EngineError, ResourceError
from edge_medgemma.runtime.files import new_directory
from edge_medgemma.runtime.manifest import (
    DECODE_GRAPH,
    MANIFEST_NAME,
    PREFILL_GRAPH,
    SCHEMA_VERSION,
    FileRecord,
    Manifest,
    Precision,
    Scope,
    Source,
    dump_manifest,
)

LICENCE = "Health AI Developer Foundations Terms of Use"
SCOPED_LICENCE = "Apache-2.0"
"""A demo network is trained by this project, from nothing; no published weights are in it."""
TERMS_URL = "https://developers.google.com/health-ai-developer-foundations/terms"

Progress = Callable[[int, int], None]
"""Called with the bytes written so far and the bytes there will be."""


def export_engine(
    checkpoint: Checkpoint,
    destination: Path,
    *,
    precision: str,
    block_size: int,
    calibration: Calibration | None = None,
    vision_limits: Mapping[str, float] | None = None,
    scope: Scope | None = None,
    target: Target = CPU,
    on_progress: Progress | None = None,
) -> Manifest:
    """Write the engine directory `destination`, which must not exist yet, and return its manifest.

    Args:
        checkpoint: to export
        destination: of the engine
        precision: one of `quant_scheme.PRECISIONS`
        block_size: inputs that share a scale where weights alone are quantised
        calibration: of this checkpoint; see `quant_scheme.plan_export`
        vision_limits: in place of a calibration; see `quant_scheme.plan_export`
        scope: all that an engine that is not MedGemma may be asked
        target: what runs it
        on_progress: called with bytes written and bytes there will be

    Raises:
        EngineError: an unknown precision or block size, or fp16 attention would overflow.
        CheckpointError: a weight is not finite or its size does not fit the blocks.
        ResourceError: `destination` exists, or the disk is full; nothing is left behind.
    """
    export_plan = plan_export(
        checkpoint,
        precision,
        block_size,
        calibration,
        vision_limits=vision_limits,
        target=target,
    )
    with new_directory(destination) as folder:
        return write_engine(export_plan, folder, scope, on_progress)


def write_engine(
    export_plan: ExportPlan,
    folder: Path,
    scope: Scope | None,
    on_progress: Progress | None,
) -> Manifest:
    """Write all files of an engine into `folder`, over those that are there."""
    checkpoint = export_plan.checkpoint
    notice = _notice(checkpoint, export_plan.scheme, scope)
    engine = _EngineWriter(export_plan, folder, notice, on_progress)
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
        licence=_licence(checkpoint, scope),
        scope=scope,
        dialect=export_plan.target.dialect,
    )
    write_bytes(folder / MANIFEST_NAME, dump_manifest(manifest).encode())
    return manifest


class _EngineWriter:
    """Writes every file of one engine but the manifest."""

    def __init__(
        self, export_plan: ExportPlan, folder: Path, notice: str, on_progress: Progress | None
    ) -> None:
        self._export_plan = export_plan
        self._checkpoint = export_plan.checkpoint
        self._folder = folder
        self._notice = notice
        self._on_progress = on_progress
        self._done = 0
        self._total = 0

    def precision(self) -> Precision:
        scheme = self._export_plan.scheme
        return Precision(
            decoder=scheme.decoder,
            head=scheme.head,
            embedding=scheme.embedding,
            vision=scheme.vision,
            block_size=self._export_plan.block_size,
            head_block_size=self._export_plan.head_block_size,
            cache=self._export_plan.target.activations,
            activations=self._export_plan.target.activations,
            decode_kv_cache="int8" if self._export_plan.has_draft else None,
            draft_head=DRAFT if self._export_plan.has_draft else None,
        )

    def write(self) -> dict[str, FileRecord]:
        """Write the files; their records by name."""
        checkpoint, export_plan = self._checkpoint, self._export_plan
        ops = _dialect(export_plan.target)
        if export_plan.target.dialect == "trt":
            _check_attention(export_plan.fp32_ops)
        vision = VisionWriter(checkpoint, ops, export_plan.vision).write()
        answers = Answers(drafted_head) if export_plan.has_draft else None
        decoder = DecoderWriter(
            checkpoint, ops, export_plan.decoder, export_plan.residual_scale, answers
        ).write()
        if export_plan.target.activations != CPU.activations:
            for builder in (vision, decoder):
                activations = export_plan.target.activations
                to_half(builder, activations, export_plan.fp32_ops, wide_stream=ops.wide_stream)
        contents: dict[str, list[WeightBlob]] = {
            "vision.data": vision.blobs,
            "decoder.data": decoder.blobs,
            **decoder.shared,
        }
        if export_plan.scheme.embedding != SHARED:
            embedding = embedding_blobs(checkpoint.tensors[EMBEDDING], export_plan.scheme.embedding)
            contents |= {name: [blob] for name, blob in embedding.items()}
        self._total = sum(data_bytes(blobs) for blobs in contents.values())
        self._require_space()
        files = {
            "vision.onnx": self._graph(vision, "vision"),
            "decoder.onnx": self._graph(decoder, "decoder"),
        }
        if export_plan.target.runs_on_cuda:
            files |= self._cuda_graphs(decoder)
        for name, blobs in contents.items():
            files[name] = write_data(self._folder / name, blobs, self._advance)
        for name, text in self._texts().items():
            files[name] = write_bytes(self._folder / name, text)
        return files

    def _require_space(self) -> None:
        free = shutil.disk_usage(self._folder).free
        if free < self._total:
            raise ResourceError(
                f"the engine takes {self._total / 1e6:,.1f} MB and {free / 1e6:,.1f} MB are free; "
                "choose another disk or --precision int4"
            )

    def _graph(self, graph: GraphBuilder, name: str) -> FileRecord:
        return write_bytes(self._folder / f"{name}.onnx", graph.serialize(f"{name}.data"))

    def _cuda_graphs(self, decoder: GraphBuilder) -> dict[str, FileRecord]:
        """The decoder for chunks and for single tokens, over one copy of its weights."""
        export_plan = self._export_plan
        ops = OrtTokenDialect(window=self._checkpoint.text.sliding_window)
        token = DecoderWriter(
            self._checkpoint, ops, export_plan.decoder, export_plan.residual_scale
        ).write()
        to_half(
            token, export_plan.target.activations, export_plan.fp32_ops, wide_stream=ops.wide_stream
        )
        return {
            name: write_bytes(self._folder / name, builder.serialize_fed("decoder.data"))
            for name, builder in ((PREFILL_GRAPH, decoder), (DECODE_GRAPH, token))
        }

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


def _dialect(target: Target) -> Dialect:
    if target.dialect == "trt":
        return TrtDialect()
    return OrtCudaDialect() if target.runs_on_cuda else OrtDialect()


def _check_attention(fp32_ops: Sequence[str]) -> None:
    """Refuse fp32_ops around attention, which TensorRT has in 16 bits only.

    Queries and keys of the decoder may be large: their norms stand between.
    """
    ends = (".self_attn", ".qkv.2")
    for name in fp32_ops:
        if name.endswith(ends) or (name.startswith("vision.") and ".qkv." in name):
            raise EngineError(
                f"'{name}' passes the range of fp16 and TensorRT has no float32 attention; "
                "choose bf16 for --activations or --precision"
            )


def _licence(checkpoint: Checkpoint, scope: Scope | None) -> str:
    if scope is not None:
        return SCOPED_LICENCE
    return "none: random weights" if checkpoint.kind == "synthetic" else LICENCE


def _notice(checkpoint: Checkpoint, scheme: QuantScheme, scope: Scope | None) -> str:
    if scope is not None:
        return (
            f"{checkpoint.name}: {scope.notice}.\n"
            "Its weights were trained by this project and contain nothing of MedGemma.\n"
        )
    if checkpoint.kind == "synthetic":
        return (
            f"{checkpoint.name}: random weights in the shape of a published model, for measuring "
            "devices.\nThey contain nothing of MedGemma and know nothing of medicine.\n"
        )
    changes = (
        f"decoder {scheme.decoder}, head {scheme.head}, embedding {scheme.embedding}, "
        f"vision {scheme.vision}"
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
