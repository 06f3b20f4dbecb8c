"""Host memory that a scan needs, computed from the manifest before anything is loaded.

Counted: weights as onnxruntime holds them on a CPU, keys and values by their two geometries, pixels
and image features, masks, scores and activations of the widest pass. Not counted: the page cache of
the original weights while the packed ones are loaded, which the system may reclaim.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.memory.cache_geometry import (
    GLOBAL_GROWTH_SLOTS,
    LOCAL_SLACK_SLOTS,
    MAX_PREFILL_TOKENS,
)
from edge_medgemma.runtime.model_shape import TextSpec
from edge_medgemma.runtime.slicing.sampling import MAX_SLICES

PROGRAM_BYTES = 150 * 10**6
"""Interpreter and libraries, before a session is open."""

VISION_WEIGHT_FACTOR = 1.0
DECODER_WEIGHT_FACTOR = 1.0
"""Resident bytes of a loaded part for each byte of its file, packed or as it is."""

VISION_WORKSPACE_ROWS = 4
"""Activations of the widest layer that are alive at once for each patch."""

TOKENS_OF_TEXT = 10
"""Tokens of a slice beside its image tokens: begin, end and label."""

TOKENS_OF_PROMPT = 512
"""Tokens beside all slices: instruction, a question, a short answer."""

TOGETHER_SHARE = 0.2
"""Share of the available memory up to which vision tower and decoder stay loaded side by side:
loading one again takes seconds, and a bedside computer has other things to do."""

FLOAT_BYTES = 4

DEFAULT_SHAPE = (512, 512)
"""Rows and columns of a CT slice."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Peak resident bytes of a triage."""

    program_bytes: int
    pixels_bytes: int
    """Pixels of all slices, held throughout."""
    features_bytes: int
    """Image features of all slices, each held until its prefill."""
    vision_bytes: int
    """Weights and workspace of the vision tower."""
    decoder_bytes: int
    """Weights and workspace of the decoder."""
    cache_bytes: int
    """Keys and values of all slices, and their copy in int8 that answers are decoded with."""

    @property
    def peak_bytes(self) -> int:
        """Peak where vision tower and decoder take turns."""
        encoding = self.vision_bytes + self.features_bytes
        decoding = self.decoder_bytes + self.cache_bytes
        return self.program_bytes + self.pixels_bytes + max(encoding, decoding)

    @property
    def together_bytes(self) -> int:
        """Peak where both are loaded at once."""
        parts = self.vision_bytes + self.features_bytes + self.decoder_bytes + self.cache_bytes
        return self.program_bytes + self.pixels_bytes + parts


def plan_memory(
    manifest: Manifest, slices: int, shape: tuple[int, int] = DEFAULT_SHAPE
) -> MemoryPlan:
    """Memory that a triage of `slices` of `shape` (rows, columns) needs."""
    text, vision = manifest.text, manifest.vision
    features = vision.tokens_per_image * text.hidden_size * FLOAT_BYTES
    pixels = math.prod(shape) * (FLOAT_BYTES + 3)  # decoded values, and three colours
    tokens = slices * (vision.tokens_per_image + TOKENS_OF_TEXT) + MAX_PREFILL_TOKENS
    return MemoryPlan(
        program_bytes=PROGRAM_BYTES,
        pixels_bytes=slices * pixels,
        features_bytes=slices * features,
        vision_bytes=round(VISION_WEIGHT_FACTOR * file_bytes(manifest, "vision"))
        + _vision_workspace_bytes(manifest),
        decoder_bytes=_decoder_bytes(manifest, tokens),
        cache_bytes=cache_bytes(manifest, tokens),
    )


def require_context_memory(manifest: Manifest, tokens: int, available_bytes: int) -> None:
    """Refuse a context of `tokens`, of whatever they are, that the decoder has no memory for.

    Raises:
        ResourceError: too little; the message says how much of how much.
    """
    needed = PROGRAM_BYTES + _decoder_bytes(manifest, tokens) + cache_bytes(manifest, tokens)
    if needed > available_bytes:
        raise ResourceError(
            f"a context of {tokens:,} tokens needs {gigabytes(needed)} with this engine, "
            f"{gigabytes(available_bytes)} are available; close other programs"
        )


def host_bytes(manifest: Manifest, slices: int, shape: tuple[int, int]) -> int:
    """Bytes on the host where a GPU runs both parts of the engine."""
    plan = plan_memory(manifest, slices, shape)
    return plan.program_bytes + plan.pixels_bytes + plan.features_bytes


def cache_bytes(manifest: Manifest, tokens: int) -> int:
    """Bytes of keys and values of a prefix of `tokens`, with the slots that are kept in reserve.

    While an answer is decoded, a copy of them in int8 stands beside them.
    """
    text, precision = manifest.text, manifest.precision
    itemsize = 4 if precision.cache == "fp32" else 2
    itemsize += precision.decode_kv_cache == "int8"
    row = 2 * text.kv_heads * text.head_dim * itemsize
    global_layers = sum(text.layer_is_global)
    local_rows = text.sliding_window + LOCAL_SLACK_SLOTS
    local_layers = text.layers - global_layers
    return row * (global_layers * (tokens + GLOBAL_GROWTH_SLOTS) + local_layers * local_rows)


def require_memory(
    manifest: Manifest, slices: int, shape: tuple[int, int], available_bytes: int
) -> None:
    """Refuse what does not fit, before it is begun.

    Args:
        manifest: of the engine.
        slices: to be shown.
        shape: rows and columns of a slice.
        available_bytes: that this process may hold.

    Raises:
        ResourceError: too little; the message says what would fit.
    """
    needed_bytes = plan_memory(manifest, slices, shape).peak_bytes
    if needed_bytes <= available_bytes:
        return
    fitting = largest_slices(manifest, available_bytes, shape)
    if fitting:
        advice = f"use --slices {fitting}"
    else:
        least = plan_memory(manifest, 1, shape).peak_bytes
        advice = f"one slice needs {gigabytes(least)}; close other programs"
        smaller = replace(manifest.precision, decoder="int4")
        if manifest.precision != smaller:
            saved = file_bytes(manifest, "decoder") - _int4_bytes(manifest.text)
            advice += f" or use an int4 engine ({gigabytes(least - saved)})"
    raise ResourceError(
        f"{slices} slices need {gigabytes(needed_bytes)} of memory with this engine, "
        f"{gigabytes(available_bytes)} are available; {advice}"
    )


def fits_together(manifest: Manifest, available_bytes: int) -> bool:
    """Whether vision tower and decoder may stay loaded side by side, however many the slices."""
    plan = plan_memory(manifest, MAX_SLICES)
    return plan.together_bytes <= TOGETHER_SHARE * available_bytes


def largest_slices(
    manifest: Manifest, available_bytes: int, shape: tuple[int, int] = DEFAULT_SHAPE
) -> int:
    """Most slices whose triage fits into `available_bytes` and the engine's positions; may be 0."""

    def fits(slices: int) -> bool:
        return plan_memory(manifest, slices, shape).peak_bytes <= available_bytes

    return most_slices(manifest, fits)


def most_slices(manifest: Manifest, fits: Callable[[int], bool]) -> int:
    """Most slices that `fits` allows, up to the engine's positions; may be 0. More never fit better."""
    tokens = manifest.vision.tokens_per_image + TOKENS_OF_TEXT
    low, high = 0, max(manifest.text.max_positions - TOKENS_OF_PROMPT, 0) // tokens
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def file_bytes(manifest: Manifest, part: str) -> int:
    """Bytes of all files of `vision`, `decoder` or `embedding`."""
    return sum(r.bytes for name, r in manifest.files.items() if name.startswith(f"{part}."))


def _int4_bytes(text: TextSpec) -> int:
    """Bytes of decoder weights in int4 with a scale of 4 bytes for 128, the head in int8."""
    attention = text.hidden_size * text.head_dim * 2 * (text.heads + text.kv_heads)
    layer = attention + 3 * text.hidden_size * text.intermediate_size
    return round(text.layers * layer * (0.5 + 4 / 128)) + text.vocabulary * text.hidden_size


def _decoder_bytes(manifest: Manifest, tokens: int) -> int:
    weights = round(DECODER_WEIGHT_FACTOR * file_bytes(manifest, "decoder"))
    workspace = _decoder_workspace_bytes(manifest, tokens)
    return weights + file_bytes(manifest, "embedding") + workspace


def _vision_workspace_bytes(manifest: Manifest) -> int:
    vision = manifest.vision
    patches = (vision.image_size // vision.patch_size) ** 2
    return VISION_WORKSPACE_ROWS * patches * vision.intermediate_size * FLOAT_BYTES


def _decoder_workspace_bytes(manifest: Manifest, tokens: int) -> int:
    """Bytes of the widest pass: masks, scores of all heads over all tokens, activations."""
    text = manifest.text
    rows = max(MAX_PREFILL_TOKENS, manifest.vision.tokens_per_image + TOKENS_OF_TEXT)
    over_tokens = (2 + text.heads) * tokens
    activations = 4 * text.intermediate_size + 4 * text.hidden_size
    return rows * (over_tokens + activations) * FLOAT_BYTES


def gigabytes(count: int) -> str:
    """Bytes as text: `2.5 GB`."""
    return f"{count / 1e9:.1f} GB"
