import json
import shutil
from pathlib import Path

import pytest

from edge_medgemma.runtime.documents import dump_sealed, unsealed
from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.manifest import MANIFEST_NAME, dump_manifest, load_manifest


@pytest.fixture
def engine_copy(tiny_engine_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_engine_directory, tmp_path / "engine"))


def _edit(directory: Path, **changes: object) -> None:
    """Alter fields as somebody would who seals the file again."""
    path = directory / MANIFEST_NAME
    path.write_text(dump_sealed(json.loads(unsealed(path.read_bytes())) | changes))


def test_manifest_survives_the_round_trip(tiny_engine_directory: Path) -> None:
    manifest = load_manifest(tiny_engine_directory)
    assert dump_manifest(manifest) == (tiny_engine_directory / MANIFEST_NAME).read_text()
    assert set(manifest.files) == {
        path.name for path in tiny_engine_directory.iterdir() if path.name != MANIFEST_NAME
    }


def test_missing_directory_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="edge-medgemma export"):
        Engine.open(tmp_path / "nothing")


def test_directory_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no manifest\.json"):
        Engine.open(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"schema_version": 3}', '{"schema_version": "3"}', "\x00\xff", "[" * 9999],
)
def test_a_file_that_is_no_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(text)
    with pytest.raises(EngineError, match="not a manifest"):
        Engine.open(tmp_path)


def test_later_version_asks_for_an_upgrade(engine_copy: Path) -> None:
    _edit(engine_copy, schema_version=99)
    with pytest.raises(EngineError, match=r"version 99.*upgrade edge-medgemma"):
        Engine.open(engine_copy)


def test_a_manifest_from_before_seals_asks_for_another_export(engine_copy: Path) -> None:
    path = engine_copy / MANIFEST_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 2}))
    with pytest.raises(EngineError, match=r"version 2, this program reads 5; export the engine"):
        Engine.open(engine_copy)


def test_a_sealed_manifest_of_an_earlier_layout_asks_for_another_export(engine_copy: Path) -> None:
    _edit(engine_copy, schema_version=4)
    with pytest.raises(EngineError, match=r"version 4, this program reads 5; export the engine"):
        Engine.open(engine_copy)


@pytest.mark.parametrize("old, new", [("0.5", "0.4"), ("false", "true"), (" ", ""), ("a", "b")])
def test_an_altered_manifest_is_refused_whatever_it_says(
    engine_copy: Path, old: str, new: str
) -> None:
    path = engine_copy / MANIFEST_NAME
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(EngineError, match="SHA-256 is not that of its content"):
        Engine.open(engine_copy)


def test_a_file_that_every_engine_has_must_be_listed(engine_copy: Path) -> None:
    files = json.loads((engine_copy / MANIFEST_NAME).read_text())["files"]
    _edit(engine_copy, files={name: files[name] for name in files if name != "vision.data"})
    with pytest.raises(EngineError, match=r"does not list vision\.data"):
        Engine.open(engine_copy)


def test_unknown_field_is_not_ignored(engine_copy: Path) -> None:
    _edit(engine_copy, surprise=1)
    with pytest.raises(EngineError, match="surprise"):
        Engine.open(engine_copy)


@pytest.mark.parametrize("name", ["decoder.data", "vision.onnx", "tokenizer.json"])
def test_missing_file_is_named(engine_copy: Path, name: str) -> None:
    (engine_copy / name).unlink()
    with pytest.raises(EngineError, match=f"{name}' is missing"):
        Engine.open(engine_copy)


@pytest.mark.parametrize("name", ["decoder.data", "embedding.data", "chat_template.jinja"])
def test_one_flipped_bit_is_found(engine_copy: Path, name: str) -> None:
    path = engine_copy / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(EngineError, match=f"{name}' was altered"):
        Engine.open(engine_copy)


def test_a_name_that_leaves_the_directory_is_refused(engine_copy: Path) -> None:
    manifest = json.loads((engine_copy / MANIFEST_NAME).read_text())
    files = manifest["files"]
    _edit(engine_copy, files=files | {"../secret": {"bytes": 1, "sha256": "0" * 64}})
    with pytest.raises(EngineError, match="outside the directory"):
        Engine.open(engine_copy)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text": {"layers": -1}}, r"`int` >= 1 - at `\$.text.layers`"),
        ({"text": {"rms_norm_eps": 0}}, r"at `\$.text.rms_norm_eps`"),
        ({"precision": {"decoder": "int3"}}, r"at `\$.precision.decoder`"),
        ({"source": {"sha256": "0"}}, r"at `\$.source.sha256`"),
        ({"vision": {"surprise": 1}}, r"unknown field `\$.vision.surprise`"),
        ({"text": {"layers": 2000}}, r"<= 1024 - at `\$.text.layers`"),
        ({"text": {"layers": 8}}, r"7 kinds of layers for 8 layers - at `\$.text`"),
        ({"text": {"heads": 5}}, r"5 heads over 2 key heads, not a multiple"),
        ({"text": {"head_dim": 33}}, r"an odd head_dim, 33"),
        ({"text": {"embed_scale": 10.0}}, r"embed_scale 10, above the root of 96"),
        ({"text": {"vocabulary": 762}}, r"token 762 is not in a vocabulary of 762"),
        ({"vision": {"heads": 5}}, r"5 heads in 48 columns"),
        ({"vision": {"image_size": 113}}, r"patches of 14 in an image of 113"),
        ({"vision": {"tokens_per_image": 9}}, r"8 x 8 patches to 9 tokens"),
        ({"vision": {"image_mean": [0.5, 0.5]}}, r"2 and 3 channels"),
        (
            {"vision": {"image_mean": [0.5, 0.5, -1]}},
            r"image_mean .* not within the values' 0 .. 1",
        ),
        ({"vision": {"image_std": [0.5, 0.5, 0]}}, r"image_std .* not within 0 .. 10"),
        ({"tokens": {"stop": []}}, r"no token stops an answer"),
        ({"tokens": {"thought_end": None}}, r"a thought begins or ends, but not both"),
        ({"tokens": {"image_end": 760}}, r"around an image are not three"),
        ({"precision": {"decoder": "int4"}}, r"96 columns are no whole blocks of 0"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_place(
    engine_copy: Path, changes: dict[str, dict[str, object]], words: str
) -> None:
    raw = json.loads((engine_copy / MANIFEST_NAME).read_text())
    _edit(engine_copy, **{part: raw[part] | values for part, values in changes.items()})
    with pytest.raises(EngineError, match=words):
        Engine.open(engine_copy)
