"""How much memory a scan needs, computed from the manifest before anything is loaded.

Counted: weights as onnxruntime holds them on a CPU, keys and values by their two geometries, pixels
and image features, masks, scores and activations of the widest pass. Not counted: the pages of the
original weights while the packed ones are loaded, which the system may take back.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.manifest import Manifest, TextSpec
from edge_medgemma.runtime.memory.cache_geometry import (
    GLOBAL_GROWTH_ROWS,
    LOCAL_SLACK_ROWS,
    MAX_PREFILL_ROWS,
)
from edge_medgemma.runtime.slicing.sampling import MAX_SLICES

PROGRAM_BYTES = 150 * 10**6
"""Interpreter and libraries, before a session is open."""

VISION_WEIGHT_FACTOR = 1.0
DECODER_WEIGHT_FACTOR = 1.0
"""Resident bytes of a loaded part for each byte of its file, packed or as it is."""

VISION_WORKSPACE_ROWS = 4
"""Rows of the widest layer that are alive at once for each patch."""

TOKENS_OF_TEXT = 10
"""Of a slice, beside its image tokens: begin, end and label."""

TOGETHER_SHARE = 0.2
"""Of the available memory. Vision tower and decoder stay loaded side by side only up to here:
loading one again takes seconds, and a bedside computer has other things to do."""

FLOAT_BYTES = 4

DEFAULT_SHAPE = (512, 512)
"""Rows and columns of a CT slice."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Peak resident bytes of a triage."""

    program_bytes: int
    pixels_bytes: int
    """Of all slices, held throughout."""
    features_bytes: int
    """What the vision tower makes of them, each held until it is read."""
    vision_bytes: int
    """Weights and workspace of the vision tower."""
    decoder_bytes: int
    """Weights and workspace of the decoder."""
    cache_bytes: int
    """Keys and values of all slices."""

    @property
    def peak_bytes(self) -> int:
        """With vision tower and decoder taking turns."""
        encoding = self.vision_bytes + self.features_bytes
        reading = self.decoder_bytes + self.cache_bytes
        return self.program_bytes + self.pixels_bytes + max(encoding, reading)

    @property
    def together_bytes(self) -> int:
        """With both loaded at once."""
        parts = self.vision_bytes + self.features_bytes + self.decoder_bytes + self.cache_bytes
        return self.program_bytes + self.pixels_bytes + parts


def plan_memory(
    manifest: Manifest, slices: int, shape: tuple[int, int] = DEFAULT_SHAPE
) -> MemoryPlan:
    """What a triage of so many slices of `shape` (rows, columns) needs."""
    text, vision = manifest.text, manifest.vision
    features = vision.tokens_per_image * text.hidden_size * FLOAT_BYTES
    pixels = math.prod(shape) * (FLOAT_BYTES + 3)  # decoded values, and three colours
    tokens = slices * (vision.tokens_per_image + TOKENS_OF_TEXT) + MAX_PREFILL_ROWS
    return MemoryPlan(
        program_bytes=PROGRAM_BYTES,
        pixels_bytes=slices * pixels,
        features_bytes=slices * features,
        vision_bytes=round(VISION_WEIGHT_FACTOR * file_bytes(manifest, "vision"))
        + _vision_workspace_bytes(manifest),
        decoder_bytes=round(DECODER_WEIGHT_FACTOR * file_bytes(manifest, "decoder"))
        + file_bytes(manifest, "embedding")
        + _decoder_workspace_bytes(manifest, tokens),
        cache_bytes=cache_bytes(manifest, tokens),
    )


def host_bytes(manifest: Manifest, slices: int, shape: tuple[int, int]) -> int:
    """What the program itself holds where a GPU runs both parts of the engine."""
    plan = plan_memory(manifest, slices, shape)
    return plan.program_bytes + plan.pixels_bytes + plan.features_bytes


def cache_bytes(manifest: Manifest, tokens: int) -> int:
    """Keys and values of a prefix of so many tokens, with the rows that are kept in reserve."""
    text = manifest.text
    itemsize = 4 if manifest.precision.cache == "fp32" else 2
    row = 2 * text.kv_heads * text.head_dim * itemsize
    global_layers = sum(text.layer_is_global)
    local_rows = text.sliding_window + LOCAL_SLACK_ROWS
    local_layers = text.layers - global_layers
    return row * (global_layers * (tokens + GLOBAL_GROWTH_ROWS) + local_layers * local_rows)


def require_memory(
    manifest: Manifest, slices: int, shape: tuple[int, int], available_bytes: int | None
) -> None:
    """Refuse what does not fit, before it is begun.

    Args:
        manifest: of the engine.
        slices: to be shown.
        shape: rows and columns of a slice.
        available_bytes: that this process may hold; None, where unknown, refuses nothing.

    Raises:
        ResourceError: too little; the message says what would fit.
    """
    needed_bytes = plan_memory(manifest, slices, shape).peak_bytes
    if available_bytes is None or needed_bytes <= available_bytes:
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


def fits_together(manifest: Manifest, available_bytes: int | None) -> bool:
    """Whether vision tower and decoder may stay loaded side by side, however many the slices."""
    if available_bytes is None:
        return False
    plan = plan_memory(manifest, MAX_SLICES)
    return plan.together_bytes <= TOGETHER_SHARE * available_bytes


def largest_slices(
    manifest: Manifest, available_bytes: int, shape: tuple[int, int] = DEFAULT_SHAPE
) -> int:
    """Most slices whose triage fits into so much memory and into the engine's positions; may be 0."""

    def fits(slices: int) -> bool:
        return plan_memory(manifest, slices, shape).peak_bytes <= available_bytes

    return most_slices(manifest, fits)


def most_slices(manifest: Manifest, fits: Callable[[int], bool]) -> int:
    """Most slices that fit, and fit into the engine's positions; may be 0. More never fit better."""
    tokens = manifest.vision.tokens_per_image + TOKENS_OF_TEXT
    low, high = 0, manifest.text.max_positions // tokens
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def available_bytes() -> int | None:
    """Memory that this process may hold in all, what it holds already included; None if unknown.

    The least of what Linux calls available and of the limits of the process's control groups.
    """
    try:
        available = _fields(Path("/proc/meminfo"))["MemAvailable"]
        held = _fields(Path("/proc/self/status")).get("RssAnon", 0)
    except (OSError, KeyError, ValueError):
        return None
    limits = _group_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return min([available + held, *limits])


def _fields(path: Path) -> dict[str, int]:
    """`Name:  123 kB` lines as bytes."""
    lines = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[2:] == ["kB"]}


def _group_limits(membership: Path, root: Path) -> list[int]:
    """Limits in bytes of the control groups in which this process is, and of those around them.

    Version 2 keeps `memory.max` in one tree, version 1 `memory.limit_in_bytes` in that of the
    memory controller (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst). A container
    may see its own group as the root.
    """
    try:
        lines = membership.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    limits = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        tree = root / "memory" if controllers else root
        file_name = "memory.limit_in_bytes" if controllers else "memory.max"
        group = tree / name.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(tree):
                break
            limits += _limit(folder / file_name)
    return limits


def _limit(path: Path) -> list[int]:
    try:
        return [int(path.read_text(encoding="ascii"))]
    except (OSError, ValueError):  # no such group, or the word `max`
        return []


def file_bytes(manifest: Manifest, part: str) -> int:
    """Bytes of all files of `vision`, `decoder` or `embedding`."""
    return sum(r.bytes for name, r in manifest.files.items() if name.startswith(f"{part}."))


def _int4_bytes(text: TextSpec) -> int:
    """Decoder weights in 4 bits with a scale of 4 bytes for 128, the head in 8 bits."""
    attention = text.hidden_size * text.head_dim * 2 * (text.heads + text.kv_heads)
    layer = attention + 3 * text.hidden_size * text.intermediate_size
    return round(text.layers * layer * (0.5 + 4 / 128)) + text.vocabulary * text.hidden_size


def _vision_workspace_bytes(manifest: Manifest) -> int:
    vision = manifest.vision
    patches = (vision.image_size // vision.patch_size) ** 2
    return VISION_WORKSPACE_ROWS * patches * vision.intermediate_size * FLOAT_BYTES


def _decoder_workspace_bytes(manifest: Manifest, tokens: int) -> int:
    """The widest pass: masks and the scores of all heads over all tokens, activations."""
    text = manifest.text
    rows = max(MAX_PREFILL_ROWS, manifest.vision.tokens_per_image + TOKENS_OF_TEXT)
    over_tokens = (2 + text.heads) * tokens
    activations = 4 * text.intermediate_size + 4 * text.hidden_size
    return rows * (over_tokens + activations) * FLOAT_BYTES


def gigabytes(count: int) -> str:
    """`2.5 GB`"""
    return f"{count / 1e9:.1f} GB"
