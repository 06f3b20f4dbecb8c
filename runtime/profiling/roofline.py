"""The least time that a machine could need: bytes and operations of the model against its peaks.

Roofline model: Williams, Waterman, Patterson, CACM 52(4), 2009. Counted is what the mathematics
needs: no padding, no masked pairs, every weight read once. FLOP = two per multiply-add.
"""

from dataclasses import dataclass, field

from edge_medgemma.runtime.backends.onnxruntime.decoder import INT8_MINIMUM_ROWS
from edge_medgemma.runtime.generation.embedding import head_scale_bytes
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.model_shape import TextSpec, VisionSpec


@dataclass(frozen=True, slots=True)
class Peaks:
    """Measured on this machine in this run, with the threads of the run; None: not measured."""

    read_bytes_per_s: float | None
    copy_bytes_per_s: float | None
    """Bytes read plus bytes written."""
    f32_flop_per_s: float | None
    """MatMul of a layer's shape in onnxruntime."""
    int8_flop_per_s: float | None
    """MatMulInteger of the same shape."""
    weight_only_flop_per_s: float | None
    """MatMulNBits as the decoder's layers use it; None where the decoder has no such weights."""
    bf16_flop_per_s: float | None = None
    """MatMul in OpenVINO where it computes in bfloat16."""
    device: str = ""
    """A GPU, whose one product in 16 bits stands for all; empty for the CPU"""
    level: str = ""
    """Instruction set that our kernels compute with; empty where none do"""
    instruction_flop_per_s: dict[str, float] = field(default_factory=dict)
    """Its multiply instructions on registers alone, by the type of numbers."""


@dataclass(frozen=True, slots=True)
class Work:
    """Bytes and operations that the mathematics needs, whoever does them."""

    bytes: float
    """Weights and cache rows to read."""
    weight_flop: float
    """In multiplications with weights."""
    other_flop: float
    """In attention: scores and values."""

    @property
    def flop(self) -> float:
        """All of it."""
        return self.weight_flop + self.other_flop


@dataclass(frozen=True, slots=True)
class Ceiling:
    """How close a row came to what the machine could do."""

    work: Work
    seconds: float
    """Least time at the measured peaks."""
    bound: str
    """`memory` or `compute`, whichever takes longer"""
    fraction: float
    """seconds / median; above 1 where the library computes in a narrower type than the peak's."""


def vision_flop(vision: VisionSpec, hidden_size: int) -> tuple[float, float]:
    """FLOP of one slice: in weights, and in attention.

    Per layer and patch 4 H² + 2 H I weights (query, key, value, output; two of the MLP), and
    4 P H for scores and values; SigLIP of arXiv:2303.15343, as config.json of Gemma 3 sizes it.
    896 px of MedGemma 4B: 3.37 + 2.09 TFLOP.

    Args:
        vision: sizes of the tower
        hidden_size: of the language model, which the projector maps to
    """
    patches = (vision.image_size // vision.patch_size) ** 2
    width, inner = vision.hidden_size, vision.intermediate_size
    layers = vision.layers * patches * (4 * width**2 + 2 * width * inner)
    embedding = patches * 3 * vision.patch_size**2 * width
    projector = vision.tokens_per_image * width * hidden_size
    attention = vision.layers * 4 * patches**2 * width
    return 2.0 * (layers + embedding + projector), float(attention)


def body_parameters(text: TextSpec) -> int:
    """Weights of the decoder's layers: query, key, value, output and three of the gated MLP."""
    attention = text.hidden_size * text.head_dim * (2 * text.heads + 2 * text.kv_heads)
    return text.layers * (attention + 3 * text.hidden_size * text.intermediate_size)


def head_parameters(text: TextSpec) -> int:
    """Weights of the projection to the vocabulary."""
    return text.vocabulary * text.hidden_size


def decoder_bytes(manifest: Manifest, *, is_decode: bool = False) -> int:
    """Bytes of weights that one pass reads: the layers and the head, of which a draft is one plane.

    The head lies in `embedding.data` where the embedding shares it. The rows that an embedding reads
    for a pass, and the head's rows for the draft's best tokens, are not worth counting.
    """
    size = manifest.files["decoder.data"].bytes
    precision, parameters = manifest.precision, head_parameters(manifest.text)
    if precision.embedding == "head":
        size += manifest.files["embedding.data"].bytes
    if precision.draft_head is None:
        return size
    if is_decode:
        return size - parameters // 2
    return size + head_scale_bytes(manifest)  # each plane reads them


def cache_row_bytes(manifest: Manifest, *, is_int8: bool = False) -> int:
    """Key and value of one token in one layer."""
    size = 1 if is_int8 else 4 if manifest.precision.cache == "fp32" else 2
    return 2 * manifest.text.kv_heads * manifest.text.head_dim * size


def cache_read_bytes(manifest: Manifest, tokens: int, *, is_decode: bool = False) -> int:
    """Cache rows that a token at position `tokens` reads: all of global layers, a window of others."""
    text = manifest.text
    layers = sum(text.layer_is_global)
    rows = layers * tokens + (text.layers - layers) * min(tokens, text.sliding_window)
    has_int8 = is_decode and manifest.precision.decode_kv_cache == "int8"
    return rows * cache_row_bytes(manifest, is_int8=has_int8 and tokens > INT8_MINIMUM_ROWS)


def prefill_work(manifest: Manifest, tokens: int, depth: int, *, is_decode: bool = False) -> Work:
    """A pass of `tokens` tokens behind `depth` others, causal, one row projected to the vocabulary.

    `is_decode`: it reads the weights and caches that answers have.
    """
    text = manifest.text
    pairs = _pairs(tokens, depth, None)
    local_pairs = _pairs(tokens, depth, text.sliding_window)
    layers = sum(text.layer_is_global)
    per_pair = 4.0 * text.heads * text.head_dim
    return Work(
        bytes=float(
            decoder_bytes(manifest, is_decode=is_decode)
            + cache_read_bytes(manifest, depth + tokens, is_decode=is_decode)
        ),
        weight_flop=2.0 * (tokens * body_parameters(text) + head_parameters(text)),
        other_flop=per_pair * (layers * pairs + (text.layers - layers) * local_pairs),
    )


def generation_work(manifest: Manifest, tokens: int, depth: int) -> Work:
    """`tokens` passes of one token each."""
    passes = [prefill_work(manifest, 1, depth + i, is_decode=True) for i in range(tokens)]
    return _total(passes)


def vision_work(manifest: Manifest, slices: int) -> Work:
    """The slices, the tower's weights read once for each."""
    weights, attention = vision_flop(manifest.vision, manifest.text.hidden_size)
    size = manifest.files["vision.data"].bytes
    return Work(float(slices * size), slices * weights, slices * attention)


@dataclass(frozen=True, slots=True)
class Speeds:
    """FLOP a second that whoever runs a part could reach, by what it multiplies; None: not measured."""

    int8: float | None
    floats: float | None
    """Layers of float weights."""
    attention: float | None
    int8_attention: float | None
    """Of a vision tower whose layers are int8."""


def onnxruntime_speeds(peaks: Peaks) -> Speeds:
    """Of onnxruntime's own operators, and of a GPU."""
    floats = peaks.f32_flop_per_s
    return Speeds(peaks.int8_flop_per_s, floats, floats, floats)


def openvino_speeds(peaks: Peaks) -> Speeds:
    """Of OpenVINO: floats are bfloat16 where the processor multiplies that."""
    floats = peaks.bf16_flop_per_s or peaks.f32_flop_per_s
    return Speeds(peaks.int8_flop_per_s, floats, floats, floats)


def kernel_speeds(peaks: Peaks) -> Speeds:
    """Of our kernels: floats are int16, attention is bfloat16 where there are tiles of it."""
    loops = peaks.instruction_flop_per_s
    pairs, byte_products, tiles = map(loops.get, ("int16", "int8", "bfloat16 tiles"))
    return Speeds(
        int8=loops.get("int8 tiles") or byte_products,
        floats=pairs,
        attention=tiles or pairs,
        int8_attention=tiles or byte_products,
    )


def vision_ceiling(
    manifest: Manifest, slices: int, peaks: Peaks, median_s: float, speeds: Speeds
) -> Ceiling | None:
    """Ceiling of `slices` slices; all heads of an int8 tower are taken to attend in int8."""
    layers, attention = speeds.floats, speeds.attention
    if manifest.precision.vision == "int8":
        layers, attention = speeds.int8, speeds.int8_attention
    return _ceiling(vision_work(manifest, slices), layers, attention, peaks, median_s)


def decoder_ceiling(
    manifest: Manifest, work: Work, peaks: Peaks, median_s: float, speeds: Speeds
) -> Ceiling | None:
    """Ceiling of a pass or many; weights are multiplied by MatMulNBits, or in float by onnxruntime."""
    is_quantised = manifest.precision.decoder in ("int4", "int8")
    layers = peaks.weight_only_flop_per_s if is_quantised else peaks.f32_flop_per_s
    return _ceiling(work, layers, speeds.attention, peaks, median_s)


def _ceiling(
    work: Work, weight_peak: float | None, other_peak: float | None, peaks: Peaks, median_s: float
) -> Ceiling | None:
    if weight_peak is None or other_peak is None or peaks.read_bytes_per_s is None:
        return None
    compute_s = work.weight_flop / weight_peak + work.other_flop / other_peak
    memory_s = work.bytes / peaks.read_bytes_per_s
    seconds = max(compute_s, memory_s)
    bound = "memory" if memory_s > compute_s else "compute"
    return Ceiling(work, seconds, bound, seconds / median_s)


def _pairs(tokens: int, depth: int, window: int | None) -> int:
    """Query-key pairs of a causal pass in one layer."""
    return sum(min(depth + i + 1, window) if window else depth + i + 1 for i in range(tokens))


def _total(parts: list[Work]) -> Work:
    return Work(
        sum(part.bytes for part in parts),
        sum(part.weight_flop for part in parts),
        sum(part.other_flop for part in parts),
    )
