"""A manifest that fits itself but not the graphs is refused before memory is shared with them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_medgemma.runtime.backends.onnxruntime.decoder import OrtDecoder
from edge_medgemma.runtime.backends.select import Provider, open_vision
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.generation.embedding import Embedding
from edge_medgemma.runtime.manifest import Manifest, load_manifest


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return load_manifest(BUILTIN_ENGINE)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kv_heads": 1}, r"past_key\.0"),
        ({"head_dim": 32}, r"past_key\.0"),
        ({"layers": 6, "layer_is_global": (False,) * 5 + (True,)}, r"past_key\.6"),
        ({"layer_is_global": (False,) * 4 + (True, True, False)}, r"past_key\.4"),
        ({"hidden_size": 256}, "embeddings"),
        ({"vocabulary": 575}, "logits"),
    ],
)
def test_a_decoder_of_another_shape_is_refused(
    manifest: Manifest, changes: dict[str, Any], words: str
) -> None:
    other = replace(manifest, text=replace(manifest.text, **changes))
    with pytest.raises(EngineError, match=words):
        OrtDecoder(BUILTIN_ENGINE, other, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cache": "fp16"}, r"past_key\.0, tensor\(float\) in the graph"),
        ({"decode_kv_cache": None}, r"past_key_int8"),
        ({"draft_head": None}, "use_draft_head"),
    ],
)
def test_a_decoder_of_another_precision_is_refused(
    manifest: Manifest, changes: dict[str, Any], words: str
) -> None:
    other = replace(manifest, precision=replace(manifest.precision, **changes))
    with pytest.raises(EngineError, match=words):
        OrtDecoder(BUILTIN_ENGINE, other, 1)


def test_a_decoder_of_the_other_dialect_is_refused(manifest: Manifest) -> None:
    with pytest.raises(EngineError, match="write_global"):
        OrtDecoder(BUILTIN_ENGINE, replace(manifest, dialect="trt"), 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"image_size": 448}, "pixel_values"), ({"tokens_per_image": 64}, "image_features")],
)
def test_a_tower_of_another_shape_is_refused(
    manifest: Manifest, changes: dict[str, Any], words: str
) -> None:
    other = replace(manifest, vision=replace(manifest.vision, **changes))
    with pytest.raises(EngineError, match=words):
        open_vision(BUILTIN_ENGINE, other, Provider.CPU, 1)


@pytest.mark.parametrize(
    ("text", "precision"),
    [({"vocabulary": 575}, {}), ({}, {"embedding": "int8"}), ({}, {"head_block_size": 16})],
)
def test_a_table_of_another_size_is_refused(
    manifest: Manifest, text: dict[str, Any], precision: dict[str, Any]
) -> None:
    other = replace(
        manifest,
        text=replace(manifest.text, **text),
        precision=replace(manifest.precision, **precision),
    )
    with pytest.raises(EngineError, match=r"embedding.* has .* bytes"):
        Embedding(Path(BUILTIN_ENGINE), other)
