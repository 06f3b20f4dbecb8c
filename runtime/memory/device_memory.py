"""GPU memory that a scan needs, computed from the manifest before anything is loaded.

Nothing here has been compared with a GPU. Sizes of TensorRT-RTX plans were measured without one;
the rest is counted from shapes, or assumed where a constant says so.
"""

from dataclasses import dataclass

from edge_medgemma.runtime.backends.gpu import DeviceBudget
from edge_medgemma.runtime.backends.tensorrt.shapes import (
    DecoderShapes,
    VisionShapes,
    may_have_decode_profile,
)
from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.memory.cache_geometry import (
    GLOBAL_GROWTH_SLOTS,
    LOCAL_SLACK_SLOTS,
    MAX_PREFILL_TOKENS,
)
from edge_medgemma.runtime.memory.host_memory import (
    DEFAULT_SHAPE,
    FLOAT_BYTES,
    TOGETHER_SHARE,
    TOKENS_OF_TEXT,
    file_bytes,
    gigabytes,
    host_bytes,
    most_slices,
)
from edge_medgemma.runtime.slicing.sampling import MAX_SLICES

CONTEXT_BYTES = 500 * 10**6
"""Assumed: CUDA's context, cuBLAS and kernels of a process."""

PLAN_WEIGHT_FACTOR = 1.07
"""Size of a plan over its weights' file: 2541 MB to 2520 (decoder) and 895 to 841 (vision tower) of the 4B
shape in int4 and float16, built by TensorRT-RTX 1.7 for SM 86."""

VISION_WORKSPACE_ROWS = 5
"""Activations of the widest layer for each patch: onnxruntime 1.31 on CUDA takes 194 MB for each slice."""

ARENA_FACTOR = 2.2
"""Size of onnxruntime's blocks for the decoder, which double where more is asked for, over what is
used: of the 4B shape 0.5 GB for 8 slices and 1.3 for 85."""

QUESTION_SLOTS = 3072
"""Slots of the global caches beyond the slices: instruction, questions of a protocol, an answer."""

ELEMENT_BYTES = 2
"""Bytes of an activation, key or value on a GPU."""


@dataclass(frozen=True, slots=True)
class DeviceMemoryPlan:
    """Peak bytes of a triage on a GPU."""

    context_bytes: int
    vision_bytes: int
    """Weights, activations, batches of slices in and out"""
    decoder_bytes: int
    """Weights, activations, inputs, logits"""
    cache_bytes: int
    """Keys and values of all slices"""

    @property
    def peak_bytes(self) -> int:
        """Peak where vision tower and decoder take turns."""
        return self.context_bytes + max(self.vision_bytes, self.decoder_bytes + self.cache_bytes)

    @property
    def together_bytes(self) -> int:
        """Peak where both are loaded at once."""
        parts = self.vision_bytes + self.decoder_bytes + self.cache_bytes
        return self.context_bytes + parts


def plan_device_memory(manifest: Manifest, slices: int) -> DeviceMemoryPlan:
    """GPU memory that a triage of `slices` needs, with plans that were built for as many."""
    shapes = decoder_shapes(manifest, slices)
    return DeviceMemoryPlan(
        CONTEXT_BYTES,
        _vision_bytes(manifest),
        _decoder_bytes(manifest, shapes),
        _cache_bytes(manifest, shapes),
    )


def decoder_shapes(manifest: Manifest, slices: int) -> DecoderShapes:
    """Shapes of plans for `slices`, their questions and an answer, or of caches that grow to them."""
    tokens = slices * (manifest.vision.tokens_per_image + TOKENS_OF_TEXT)
    local_rows = manifest.text.sliding_window + LOCAL_SLACK_SLOTS
    if manifest.dialect == "trt":
        has_decode_profile = may_have_decode_profile(manifest)
        return DecoderShapes(
            tokens + QUESTION_SLOTS, local_rows, has_decode_profile=has_decode_profile
        )
    return DecoderShapes(tokens + GLOBAL_GROWTH_SLOTS, local_rows, MAX_PREFILL_TOKENS)


def require_device_memory(
    manifest: Manifest,
    slices: int,
    shape: tuple[int, int],
    budget: DeviceBudget,
    available_bytes: int,
) -> None:
    """Refuse what does not fit, before it is begun.

    Args:
        manifest: of the engine
        slices: to be shown
        shape: rows and columns of a slice
        budget: of the device
        available_bytes: of the host, that this process may hold

    Raises:
        ResourceError: too little; the message says what would fit.
    """
    fitting = largest_device_slices(manifest, budget, available_bytes, shape)
    if slices <= fitting:
        return
    if budget.rows is not None and fitting == slices_of(manifest, budget.rows):
        raise ResourceError(
            f"the plans hold {fitting} slices, {slices} were asked for; use --slices {fitting} or "
            f"run 'edge-medgemma build' again with --slices {slices}"
        )
    needed = _needed_bytes(manifest, slices, shape, budget)
    advice = f"use --slices {fitting}" if fitting else "use an int4 engine or --provider cpu"
    raise ResourceError(
        f"{slices} slices need {gigabytes(needed)} of the GPU's memory with this engine, "
        f"{gigabytes(_free_bytes(budget, available_bytes))} are free; {advice}"
    )


def largest_device_slices(
    manifest: Manifest,
    budget: DeviceBudget,
    available_bytes: int,
    shape: tuple[int, int] = DEFAULT_SHAPE,
) -> int:
    """Most slices whose triage fits on the device, into its plans and the host; may be 0."""
    free = _free_bytes(budget, available_bytes)

    def fits(slices: int) -> bool:
        on_host = budget.is_shared or host_bytes(manifest, slices, shape) <= available_bytes
        return on_host and _needed_bytes(manifest, slices, shape, budget) <= free

    most = most_slices(manifest, fits)
    return most if budget.rows is None else min(most, slices_of(manifest, budget.rows))


def fits_together_on_device(manifest: Manifest, budget: DeviceBudget, available_bytes: int) -> bool:
    """Whether vision tower and decoder may stay loaded side by side, however many the slices."""
    share = TOGETHER_SHARE if budget.is_shared else 1.0
    free = _free_bytes(budget, available_bytes)
    return plan_device_memory(manifest, MAX_SLICES).together_bytes <= share * free


def _needed_bytes(
    manifest: Manifest, slices: int, shape: tuple[int, int], budget: DeviceBudget
) -> int:
    needed = plan_device_memory(manifest, slices).peak_bytes
    return needed + (host_bytes(manifest, slices, shape) if budget.is_shared else 0)


def _free_bytes(budget: DeviceBudget, available_bytes: int) -> int:
    """Free bytes; of a shared memory those that the host's page cache would leave."""
    return available_bytes if budget.is_shared else budget.free_bytes


def slices_of(manifest: Manifest, rows: int) -> int:
    """Slices that fit into `rows` slots of the global caches."""
    return max(rows - QUESTION_SLOTS, 0) // (manifest.vision.tokens_per_image + TOKENS_OF_TEXT)


def _vision_bytes(manifest: Manifest) -> int:
    vision, hidden = manifest.vision, manifest.text.hidden_size
    patches = (vision.image_size // vision.patch_size) ** 2
    activations = VISION_WORKSPACE_ROWS * patches * vision.intermediate_size * ELEMENT_BYTES
    pixels = 3 * vision.image_size**2 * FLOAT_BYTES
    features = vision.tokens_per_image * hidden * FLOAT_BYTES
    batch = VisionShapes().batches[-1]
    factor = PLAN_WEIGHT_FACTOR if manifest.dialect == "trt" else 1.0
    weights = round(factor * file_bytes(manifest, "vision"))
    return weights + batch * (activations + 2 * pixels + features)


def _decoder_bytes(manifest: Manifest, shapes: DecoderShapes) -> int:
    text = manifest.text
    weights = file_bytes(manifest, "decoder")
    logits = shapes.logit_rows * text.vocabulary * (FLOAT_BYTES + ELEMENT_BYTES)
    activations = shapes.prefill_rows * 4 * (text.intermediate_size + text.hidden_size)
    if manifest.dialect == "trt":
        masks = shapes.prefill_rows * (shapes.global_rows + shapes.local_rows)
        scratch = FLOAT_BYTES * (activations + masks) + sum(shapes.input_bytes(manifest).values())
        return round(PLAN_WEIGHT_FACTOR * weights) + scratch + logits
    if manifest.precision.embedding == "head":  # the table that both read
        weights += file_bytes(manifest, "embedding")
    # Attention with a mask: scores in float32 and their softmax, keys and values of every head.
    scores = shapes.prefill_rows * text.heads * (FLOAT_BYTES + ELEMENT_BYTES)
    repeated = 2 * text.heads * text.head_dim * ELEMENT_BYTES
    attention = shapes.global_rows * (scores + repeated)
    widest = 2 * text.hidden_size * text.intermediate_size * ELEMENT_BYTES  # dequantised
    scratch = attention + widest + ELEMENT_BYTES * activations
    return weights + round(ARENA_FACTOR * scratch) + logits


def _cache_bytes(manifest: Manifest, shapes: DecoderShapes) -> int:
    text = manifest.text
    row = text.kv_heads * text.head_dim * ELEMENT_BYTES
    global_layers = sum(text.layer_is_global)
    local_layers = text.layers - global_layers
    rows = 2 * (global_layers * shapes.global_rows + local_layers * shapes.local_rows)
    scratch = max(shapes.global_rows, shapes.local_rows)
    return row * (rows + scratch)
