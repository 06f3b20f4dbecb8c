"""The format of every linear layer of an engine, as `--precision` means it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edge_medgemma.calibration.record import Calibration
from edge_medgemma.calibration.search.ranges import LEVELS
from edge_medgemma.export.checkpoint.checkpoint import Checkpoint
from edge_medgemma.export.checkpoint.tensor_names import HEAD
from edge_medgemma.export.graphs.embedding import DATA_NAME
from edge_medgemma.export.graphs.mixed_precision import fp32_ops
from edge_medgemma.export.graphs.rounding import BITS
from edge_medgemma.export.graphs.weights import FLOAT32, WeightFormat, WeightFormatOf
from edge_medgemma.export.quantisation.folding import scale_residual, smooth_vision
from edge_medgemma.export.quantisation.int4_search import Search, searched_formats
from edge_medgemma.export.target import CPU, SIXTEEN_BIT, Target
from edge_medgemma.runtime.errors import CheckpointError, EngineError
from edge_medgemma.runtime.model_shape import TextSpec

BLOCK_SIZES = (32, 64, 128)
"""Sizes that onnxruntime's and TensorRT's int4 kernels both take."""

HEAD_BLOCK_SIZE = 128
"""Of the head's 8 bits, which lose little: smaller ones cost more bytes a token than they are worth."""

PRECISIONS = ("fp32", "bf16", "fp16", "int8", "int4")

INT4_LAYERS: Mapping[str, tuple[str, ...]] = {
    "self_attn.qk_proj": ("self_attn.q_proj", "self_attn.k_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}
"""Linear layers of a decoder layer that have 4 bits in an int4 engine, and the weights they join."""

VALUES = "self_attn.v_proj"
"""It has 8 bits: with a fortieth of a layer's weights it makes a quarter of the loss at 4 bits."""

INPUTS_OF = {"qk_proj": "qkv_proj"}
"""Linear layer of the float graph that has the input of another by name."""

DRAFT = "int4"
"""Plane of the int8 head that drafts an answer where decoder and head are quantised."""

SHARED = "head"
"""Storage of an embedding whose rows are those of the tied head's own int8 weights."""


@dataclass(frozen=True, slots=True)
class QuantScheme:
    """Kind of weights of each part of an engine."""

    decoder: str
    head: str
    embedding: str
    vision: str


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """A quantisation scheme worked out for one checkpoint."""

    checkpoint: Checkpoint
    """The checkpoint with every fold applied: the same float model"""
    scheme: QuantScheme
    block_size: int
    head_block_size: int
    vision: WeightFormatOf
    decoder: WeightFormatOf
    target: Target = CPU
    residual_scale: float = 1.0
    """Divisor of the residual stream; 1 unless activations are fp16."""
    has_draft: bool = False
    """Whether the head is stored in planes, of which one drafts the tokens of an answer."""
    fp32_ops: tuple[str, ...] = ()
    """Values of fp16 graphs that stay float32"""


def plan_export(
    checkpoint: Checkpoint,
    precision: str,
    block_size: int,
    calibration: Calibration | None = None,
    int8_layers: frozenset[str] = frozenset(),
    target: Target = CPU,
    vision_limits: Mapping[str, float] | None = None,
    search: Search | None = None,
) -> ExportPlan:
    """Work out how every linear layer is stored.

    Args:
        checkpoint: to export
        precision: one of PRECISIONS
        block_size: inputs that share a scale where weights alone are quantised
        calibration: of this checkpoint; without it the vision tower stays in float and fp16 is not
            scaled
        int8_layers: linear layers of the decoder that stay int8 in an int4 engine
        target: what runs it; 16-bit weights are computed with in their own type wherever
        vision_limits: in place of a calibration, ranges of the inputs of the vision layers: `synthetic_vision_ranges`
        search: second moments for the integers of an int4 engine, in place of the calibration's;
            without either each weight is rounded by itself

    Raises:
        EngineError: an unknown precision or block size.
        CheckpointError: the calibration is of another checkpoint.
    """
    if precision in SIXTEEN_BIT:
        target = replace(target, activations=precision)
    if calibration is not None:
        check_same(checkpoint, calibration)
        vision_limits = {name: one.limit for name, one in calibration.vision.items()}
    has_ranges = vision_limits is not None
    scheme = _scheme(checkpoint, precision, block_size, target, has_ranges=has_ranges)
    if precision in ("fp32", *SIXTEEN_BIT):
        dense = _always(WeightFormat(precision, 0))
        export_plan = ExportPlan(checkpoint, scheme, 0, 0, dense, dense, target)
        return export_plan if calibration is None else _without_overflow(export_plan, calibration)
    plain = WeightFormat(
        scheme.decoder,
        block_size,
        is_signed=target.dialect == CPU.dialect,
        is_searched=checkpoint.kind != "synthetic",
        scale_kind="bf16" if target == CPU else "fp32",
    )

    is_whole = checkpoint.text.hidden_size % HEAD_BLOCK_SIZE == 0
    head_block_size = HEAD_BLOCK_SIZE if is_whole else block_size

    def decoder(name: str) -> WeightFormat:
        if name == "head":
            file = DATA_NAME if scheme.embedding == SHARED else None
            return replace(plain, kind=scheme.head, block_size=head_block_size, shared_file=file)
        is_int8 = name in int8_layers or name.endswith(VALUES)
        return replace(plain, kind="int8" if is_int8 else scheme.decoder)

    if calibration is not None:
        checkpoint = smooth_vision(checkpoint, calibration)
        search = search or Search(
            calibration.folder, lambda name: calibration.gram(inputs_of(name))
        )
    export_plan = ExportPlan(
        checkpoint,
        scheme,
        block_size,
        head_block_size,
        _quantized_inputs(vision_limits or {}),
        decoder if search is None else searched_formats(decoder, search),
        target,
        has_draft=target == CPU,
    )
    return export_plan if calibration is None else _without_overflow(export_plan, calibration)


def inputs_of(name: str) -> str:
    """The linear layer of a float32 engine that has the input of the linear layer `name`."""
    prefix, _, leaf = name.rpartition(".")
    return f"{prefix}.{INPUTS_OF.get(leaf, leaf)}"


def _without_overflow(export_plan: ExportPlan, calibration: Calibration) -> ExportPlan:
    """The export_plan with the residual stream scaled and the fp32_ops named, where it computes in fp16."""
    if export_plan.target.activations != "fp16":
        return export_plan
    scale = calibration.residual_scale
    scaled = scale_residual(export_plan.checkpoint, scale) if scale > 1 else export_plan.checkpoint
    kept = fp32_ops(calibration.peaks, scale)
    return replace(export_plan, checkpoint=scaled, residual_scale=scale, fp32_ops=kept)


def check_same(checkpoint: Checkpoint, calibration: Calibration) -> None:
    """Refuse a calibration of another checkpoint.

    Raises:
        CheckpointError: the hashes differ.
    """
    if checkpoint.fingerprint() != calibration.checkpoint_sha256:
        raise CheckpointError(
            f"the calibration is of '{calibration.checkpoint_name}' with other weights than "
            f"'{checkpoint.name}'; calibrate this checkpoint"
        )


def default_block_size(text: TextSpec, precision: str) -> int:
    """Block size where the user names none: activations lose less in blocks of 32, speed more."""
    whole = [size for size in (32, 64) if not any(width % size for width in _input_widths(text))]
    return 32 if precision == "int8" else max(whole, default=32)


def _input_widths(text: TextSpec) -> tuple[int, int, int]:
    """Inputs of the decoder's linear layers."""
    return text.hidden_size, text.heads * text.head_dim, text.intermediate_size


def _scheme(
    checkpoint: Checkpoint, precision: str, block_size: int, target: Target, *, has_ranges: bool
) -> QuantScheme:
    if precision not in PRECISIONS:
        raise EngineError(
            f"unknown precision '{precision}'; expected one of {', '.join(PRECISIONS)}"
        )
    if block_size not in BLOCK_SIZES:
        raise EngineError(
            f"block size {block_size} has no kernel; expected one of {', '.join(map(str, BLOCK_SIZES))}"
        )
    for width in _input_widths(checkpoint.text) if precision in BITS else ():
        if width % block_size:
            raise CheckpointError(
                f"the checkpoint has layers of {width} inputs, which blocks of {block_size} do not "
                "divide; choose a smaller --block-size or --precision fp32"
            )
    if precision == "bf16":
        # Logits need float16's finer steps, and numpy reads float16 rows.
        return QuantScheme(decoder="bf16", head="fp16", embedding="fp16", vision="bf16")
    if precision in ("fp32", "fp16"):
        return QuantScheme(precision, precision, precision, precision)
    # Head, embedding and vision lose most at 4 bits, so none goes below 8.
    # The rows of the `trt` dialect's head lie across the table: they cannot be the embedding's.
    is_shared = HEAD not in checkpoint.tensors and target.dialect == "ort"
    vision = "int8" if has_ranges else target.activations
    return QuantScheme(precision, "int8", SHARED if is_shared else "int8", vision)


def _always(weight_format: WeightFormat) -> WeightFormatOf:
    return lambda name: weight_format


def _quantized_inputs(limits: Mapping[str, float]) -> WeightFormatOf:
    """Int8 for every linear layer of the tower whose range is known; the projector stays in float."""

    def format_of(name: str) -> WeightFormat:
        if name not in limits:
            return FLOAT32
        return WeightFormat("int8", 0, input_scale=limits[name] / LEVELS)

    return format_of
