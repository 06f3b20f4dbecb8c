"""Whether an opened graph has the shapes that the manifest says, before memory is shared with it."""

from collections.abc import Iterator, Mapping
from typing import Any

from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.manifest import Manifest

Shape = tuple[int | str | None, ...]
"""A size, the first letter of a free axis's name, or None for what nobody relies on."""

CACHE_TYPES = {"fp32": "tensor(float)", "fp16": "tensor(float16)", "bf16": "tensor(bfloat16)"}


def check_vision(session: Any, manifest: Manifest) -> None:
    """Compare vision.onnx with the manifest.

    Raises:
        EngineError: says which tensor differs.
    """
    vision, hidden = manifest.vision, manifest.text.hidden_size
    side = vision.image_size
    _compare(session.get_inputs(), {"pixel_values": (None, 3, side, side)}, "vision.onnx")
    features: dict[str, Shape] = {"image_features": (None, vision.tokens_per_image, hidden)}
    _compare(session.get_outputs(), features, "vision.onnx")


def check_decoder(session: Any, manifest: Manifest) -> None:
    """Compare decoder.onnx with the manifest: inputs, number, kind and shape of all caches, logits.

    Raises:
        EngineError: says which tensor differs.
    """
    text, precision = manifest.text, manifest.precision
    inputs = session.get_inputs()
    caches = dict(_caches(manifest))
    optional = {
        "use_int8_caches": precision.decode_kv_cache is not None,
        "use_draft_head": precision.draft_head is not None,
        "write_global": manifest.dialect == "trt",
    }
    names = {one.name for one in inputs}
    wrong = {name for name in names if name.startswith("past_")} ^ set(caches)
    wrong |= {name for name, expected in optional.items() if (name in names) != expected}
    if wrong:
        raise _misfit("decoder.onnx", min(wrong), "in one of them only")
    _compare(inputs, {"embeddings": (1, None, text.hidden_size), **caches}, "decoder.onnx")
    _compare(session.get_outputs(), {"logits": (None, text.vocabulary)}, "decoder.onnx")
    float_type = CACHE_TYPES[precision.cache]
    for one in inputs:
        if one.name in caches and one.type not in (float_type, "tensor(int8)"):
            raise _misfit("decoder.onnx", one.name, f"{one.type} in the graph, not {float_type}")


def _caches(manifest: Manifest) -> Iterator[tuple[str, Shape]]:
    text = manifest.text
    kinds = ("", "_int8") if manifest.precision.decode_kv_cache == "int8" else ("",)
    for layer, is_global in enumerate(text.layer_is_global):
        shape = (1, text.kv_heads, "G" if is_global else "L", text.head_dim)
        for suffix in kinds:
            yield f"past_key{suffix}.{layer}", shape
            yield f"past_value{suffix}.{layer}", shape


def _compare(tensors: Any, expected: Mapping[str, Shape], graph: str) -> None:
    found = {one.name: one.shape for one in tensors}
    for name, shape in expected.items():
        if name not in found:
            raise _misfit(graph, name, "which the graph has not")
        if not _fits(found[name], shape):
            raise _misfit(graph, name, f"{found[name]} in the graph, not {list(shape)}")


def _fits(found: list[int | str | None], expected: Shape) -> bool:
    if len(found) != len(expected):
        return False
    for axis, size in zip(found, expected, strict=True):
        letter = axis[:1] if isinstance(axis, str) else axis
        if size is not None and letter != size:
            return False
    return True


def _misfit(graph: str, name: str, what: str) -> EngineError:
    return EngineError(
        f"{graph} and the manifest do not fit each other: {name}, {what}; export the engine again"
    )
