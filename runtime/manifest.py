"""The contract between export and runtime: what `manifest.json` of an engine directory says.

The graphs, by tensor name, [axes] and dtype. `S` tokens of a chunk, `H` hidden size, `K` kv heads,
`D` head dim, `G` capacity of the global caches, `L` capacity of the local ones, `V` vocabulary:

vision.onnx
    pixel_values     [N, 3, image_size, image_size]  float32, (x / 255 - mean) / std
    -> image_features [N, tokens_per_image, H]        float32, after the projector, not scaled

decoder.onnx, dialect `ort`
    embeddings       [1, S, H]      float32, embedding rows times `embed_scale`; image rows unscaled
    position_ids     [1, S]         int64, absolute positions, for rotary embedding
    mask_global      [1, 1, S, Tg]  float32, added to the scores of full-attention layers
    mask_local       [1, 1, S, Tl]  float32, added to the scores of sliding-attention layers
    seqlen_global    [1]            int32, Tg - 1: rows of the global caches in use after the write, less one
    total_global     []             int32, Tg
    seqlen_local     [1]            int32, Tl - 1
    total_local      []             int32, Tl
    logit_rows       [R]            int64, rows of the chunk that are projected to the vocabulary
    past_key.{i}     [1, K, G or L, D]  `precision.cache`; bound in place with present_key.{i}
    past_value.{i}   [1, K, G or L, D]  the same
    -> logits        [R, V]         float32
    -> present_key.{i}, present_value.{i}

and where `precision.decode_kv_cache` is `int8`, for the tokens of an answer:
    use_int8_caches  []             bool: attend to the int8 caches, Tg and Tl rows of them in use; the
                                    float caches are then not read and may hold no rows, and vice versa
    use_draft_head   []             bool: logits by the high plane of the head, the 256 best of each row
                                    by the head itself
    past_key_int8.{i}, past_value_int8.{i}  [1, K, G_int8 or L_int8, D]  int8, bound in place as above
    key_scale.{i}, value_scale.{i}  [K * D]  float32: key = past_key_int8 * key_scale
    -> present_key_int8.{i}, present_value_int8.{i}

and where onnxruntime on CUDA may run it, the same decoder twice, its linear maps as further inputs,
so that both graphs read one copy of them; the metadata of the graph says `{file} {offset} {bytes}`
of each:
decoder_prefill.onnx any chunk, as above
decoder_decode.onnx  one token that sees all rows in use and, in local layers, the window: no masks;
                     total_global and total_local are the capacities, the same at every step
decoder.onnx, dialect `trt`: standard operators that TensorRT >= 10.15 and onnxruntime both run.
As above, with these instead of the masks, seqlen and total:
    mask_global      [1, 1, S, G]   bool over the whole capacity, True where a row may be seen
    mask_local       [1, 1, S, L]   bool, the same for sliding-attention layers
    write_global     [1]            int64, Tg - S: the cache row that takes the chunk's first token
    write_local      [1]            int64, Tl - S

The keys and values of a chunk are written at cache rows Tg - S .. Tg - 1 (Tl - S .. Tl - 1). Which
row may see which is said by the masks alone: the graph knows no causality and no window.

Of the `trt` dialect the caller further owes:
- Tg <= G and Tl <= L: a write beyond the capacity is not caught.
- Caches zeroed when they are made: a masked row counts as 0 times its value, and 0 times NaN is NaN.
- One device address for past_*.{i} and present_*.{i}.
- G and L as numbers before TensorRT parses the file, in which they are the named axes
  `GLOBAL` and `LOCAL`: TensorRT takes no cache of a free capacity. See `backends.capacity`.
Both dialects keep the window of the local layers the same way: L is the window and some slack, and
the caller moves the rows still in sight to the front when they are full.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from edge_medgemma.runtime.documents import (
    Sha256,
    Size,
    dump_json,
    dump_sealed,
    parse_document,
    unsealed,
)
from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.model_shape import TextSpec, TokenSpec, VisionSpec, require
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality

SCHEMA_VERSION = 5
MANIFEST_NAME = "manifest.json"

SEALED_SINCE = 3
"""Schema version from which a manifest carries the hash of its own text."""

REQUIRED_FILES = frozenset(
    [
        "vision.onnx",
        "vision.data",
        "decoder.onnx",
        "decoder.data",
        "embedding.data",
        "tokenizer.json",
        "chat_template.jinja",
    ]
)
"""Files that every engine has, whatever its target."""

PREFILL_GRAPH = "decoder_prefill.onnx"
DECODE_GRAPH = "decoder_decode.onnx"

WeightKind = Annotated[str, msgspec.Meta(pattern="^(fp32|fp16|bf16|int8|int4)$")]
FloatKind = Annotated[str, msgspec.Meta(pattern="^(fp32|fp16|bf16)$")]


@dataclass(frozen=True, slots=True)
class Precision:
    """How the weights of each part are stored: `fp32`, `fp16`, `bf16`, `int8` or `int4`."""

    decoder: WeightKind
    head: WeightKind
    embedding: Annotated[str, msgspec.Meta(pattern="^(fp32|fp16|int8|head)$")]
    """`head` where the rows are those of the tied head's int8 weights, in planes where those are"""
    vision: WeightKind
    """`int8`: activations as well"""
    block_size: Size
    """Inputs of the decoder's layers that share one scale; 0 where nothing is quantised in blocks."""
    head_block_size: Size = 0
    """The same of the head"""
    cache: FloatKind = "fp32"
    """Type of keys and values: `fp32`, `fp16` or `bf16`"""
    activations: FloatKind = "fp32"
    """Type that the graphs compute in: `fp32`, `fp16` or `bf16`"""
    decode_kv_cache: WeightKind | None = None
    """Type of keys and values during decode: `int8`, or None for that of `cache`"""
    draft_head: WeightKind | None = None
    """`int4`: the int8 head is stored as two planes of 4 bits (`generation.embedding`), the high one of
    which drafts decoded tokens; None for a head in one piece"""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Size and SHA-256 of one file of the engine directory."""

    bytes: Size
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class Source:
    """Where the weights come from."""

    kind: Annotated[str, msgspec.Meta(pattern="^(checkpoint|synthetic)$")]
    name: str
    """Hub id or folder name; never an absolute path."""
    revision: str | None
    sha256: Sha256
    adapter_sha256: Sha256 | None


@dataclass(frozen=True, slots=True)
class Scope:
    """All that an engine may be asked, where that is less than any scan and any question."""

    is_demonstration: bool
    """Trained on synthetic scans: what it says outside its scope and its domain means nothing."""
    notice: str
    """Statement of the engine about itself, shown with every result."""
    protocol: str
    """Name of the built-in protocol that asks for all of `findings` and for nothing else."""
    modalities: tuple[Modality, ...]
    body_parts: tuple[BodyPart, ...]
    findings: tuple[str, ...]
    """Codes of the findings it may be asked about; all others are reported as not assessed."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that a runtime must know of an engine before it opens a graph."""

    schema_version: int
    architecture: str
    text: TextSpec
    vision: VisionSpec
    tokens: TokenSpec
    precision: Precision
    source: Source
    tools: Mapping[str, str]
    files: Mapping[str, FileRecord]
    licence: str
    scope: Scope | None = None
    """None for a MedGemma checkpoint, which may be asked anything."""
    calibration: Mapping[str, Any] | None = None
    dialect: Annotated[str, msgspec.Meta(pattern="^(ort|trt)$")] = "ort"
    """Which operators the graphs are lowered to: those of onnxruntime, or the standard ones"""

    def __post_init__(self) -> None:
        vocabulary, largest = self.text.vocabulary, max(self.tokens.ids)
        require(largest < vocabulary, f"token {largest} is not in a vocabulary of {vocabulary}")
        precision, width = self.precision, self.text.hidden_size
        sizes = [precision.block_size] if precision.decoder == "int4" else []
        if precision.embedding == "head" or precision.draft_head == "int4":
            sizes.append(precision.head_block_size)
        for size in sizes:
            whole = size > 0 and width % size == 0
            require(whole, f"{width} columns are no whole blocks of {size}")

    @property
    def has_random_weights(self) -> bool:
        """Whether the engine measures devices only: what it says of a scan means nothing."""
        return self.source.kind == "synthetic"

    @property
    def sha256(self) -> str:
        """Identity of the engine: hash of the canonical manifest, which holds every file's hash."""
        return hashlib.sha256(dump_json(self).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Versioned:
    """All that is read of a manifest before its seal is compared."""

    schema_version: int


def dump_manifest(manifest: Manifest) -> str:
    """The text of manifest.json, sealed: the one way to write or rewrite it."""
    return dump_sealed(manifest)


def load_manifest(directory: Path) -> Manifest:
    """The manifest of an engine directory; nothing of it is believed before its seal matches.

    Raises:
        EngineError: no such directory or manifest, altered, another schema version, or fields and
            numbers that this version does not know.
    """
    path = directory / MANIFEST_NAME
    if not directory.is_dir():
        raise EngineError(
            f"no engine directory at '{directory}'; make one with 'edge-medgemma export'"
        )
    if not path.is_file():
        raise EngineError(f"'{directory}' has no {MANIFEST_NAME}; expected an engine directory")
    try:
        data = path.read_bytes()
        version = _schema_version(data)
        if version < SEALED_SINCE:
            _refuse_version(path, version)
        raw = msgspec.json.decode(unsealed(data))
        if version != SCHEMA_VERSION:
            _refuse_version(path, version)
        manifest = parse_document(raw, Manifest)
    except OSError as error:
        raise EngineError(
            f"'{path}' cannot be read ({error.strerror}); check its permissions"
        ) from None
    except EngineError:
        raise
    except (ValueError, RecursionError) as error:
        raise EngineError(
            f"'{path}' is altered or not a manifest ({error}); copy or export the engine again"
        ) from None
    for name in sorted(REQUIRED_FILES - manifest.files.keys()):
        raise EngineError(f"'{path}' does not list {name}; export the engine again")
    return manifest


def _schema_version(data: bytes) -> int:
    """The version that a manifest says it has, which only its seal proves."""
    return msgspec.json.decode(data, type=_Versioned).schema_version


def _refuse_version(path: Path, version: int) -> None:
    is_later = version > SCHEMA_VERSION
    raise EngineError(
        f"'{path}' has schema version {version}, this program reads {SCHEMA_VERSION}; "
        f"{'upgrade edge-medgemma' if is_later else 'export the engine again'}"
    )


def verify_file(directory: Path, name: str, record: FileRecord, *, contents: bool = True) -> None:
    """Check presence and size of one file the manifest names and, with `contents`, its SHA-256.

    Raises:
        EngineError: it is missing or altered, or its name leaves the directory.
    """
    path = directory / name
    if not path.resolve().is_relative_to(directory.resolve()):
        raise EngineError(f"the manifest of '{directory}' names '{name}', outside the directory")
    if not path.is_file():
        raise EngineError(f"engine file '{path}' is missing; copy or export the engine again")
    size = path.stat().st_size
    if size != record.bytes:
        raise EngineError(
            f"engine file '{path}' has {size} bytes, the manifest says {record.bytes}; "
            "copy or export the engine again"
        )
    if contents and file_sha256(path) != record.sha256:
        raise EngineError(
            f"engine file '{path}' was altered (SHA-256 differs from the manifest); "
            "copy or export the engine again"
        )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
