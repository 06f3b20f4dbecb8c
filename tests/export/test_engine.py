import json
import resource
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file
from support.fake_engine import demo_scope

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.checkpoint.synthetic import synthetic_checkpoint
from edge_medgemma.export.engine import export_engine
from edge_medgemma.export.graphs import ort_head
from edge_medgemma.export.quantisation.quant_scheme import PRECISIONS
from edge_medgemma.runtime.errors import CheckpointError, EngineError, ResourceError
from edge_medgemma.runtime.generation.embedding import Embedding
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prompt import Chunk
from edge_medgemma.runtime.generation.sampling import Sampling
from edge_medgemma.runtime.manifest import load_manifest
from edge_medgemma.runtime.store.integrity import check_engine


def export(checkpoint, folder, precision="int4", block_size=32):
    return export_engine(checkpoint, folder, precision=precision, block_size=block_size)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_manifest_describes_the_directory(tiny_checkpoint, tmp_path, precision):
    manifest = export(open_checkpoint(str(tiny_checkpoint)), tmp_path / "engine", precision)
    assert load_manifest(tmp_path / "engine") == manifest
    check_engine(tmp_path / "engine", manifest)
    names = {path.name for path in (tmp_path / "engine").iterdir()}
    assert names == {"manifest.json", *manifest.files}
    assert manifest.precision.decoder == precision
    assert "HAI-DEF is provided under" in (tmp_path / "engine" / "NOTICE").read_text()
    assert str(tiny_checkpoint) not in (tmp_path / "engine" / "manifest.json").read_text()


def test_embedding_rows_are_close_to_the_checkpoint(tiny_checkpoint, tmp_path):
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    export(checkpoint, tmp_path / "engine")
    ids = list(range(768))
    rows = Embedding(tmp_path / "engine", load_manifest(tmp_path / "engine")).rows(ids)
    expected = checkpoint.tensors["text.embed_tokens.weight"].read()
    blocks = np.abs(expected).reshape(768, 3, 32).max(axis=2).repeat(32, axis=1)
    error = np.abs(rows / np.float32(checkpoint.text.embed_scale) - expected)
    assert (error <= blocks / 238 + 1e-6).all()


def test_two_exports_are_the_same_bytes(tiny_checkpoint, tmp_path):
    for name in ("one", "two"):
        export(open_checkpoint(str(tiny_checkpoint)), tmp_path / name)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_spellings_of_names_and_config_give_the_same_graphs(tiny_checkpoint, tmp_path):
    other = shutil.copytree(tiny_checkpoint, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    renamed = {
        f"model.{name.replace('language_model.model.', 'language_model.')}": tensor
        for name, tensor in tensors.items()
    }
    renamed["lm_head.weight"] = renamed["model.language_model.embed_tokens.weight"].copy()
    save_file(renamed, other / "model.safetensors")
    config = json.loads((other / "config.json").read_text())
    text = config["text_config"]
    for field in ("rope_parameters", "layer_types"):
        del text[field]
    text |= {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window_pattern": 6}
    text["rope_scaling"] = {"rope_type": "linear", "factor": 8.0}
    config["torch_dtype"] = config.pop("dtype")
    (other / "config.json").write_text(json.dumps(config))

    first = export(open_checkpoint(str(tiny_checkpoint)), tmp_path / "first")
    second = export(open_checkpoint(str(other)), tmp_path / "second")
    assert {k: v for k, v in first.files.items() if k != "NOTICE"} == {
        k: v for k, v in second.files.items() if k != "NOTICE"
    }
    assert (first.text, first.vision, first.tokens) == (second.text, second.vision, second.tokens)
    assert first.source.sha256 != second.source.sha256


def test_progress_ends_at_the_total(tmp_path):
    seen = []
    export_engine(
        synthetic_checkpoint("tiny"),
        tmp_path / "engine",
        precision="int8",
        block_size=32,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    dones = [done for done, _ in seen]
    assert dones == sorted(dones)
    assert seen[-1][0] == seen[-1][1]


def test_the_scope_is_passed_on(tmp_path):
    scope = demo_scope("for show", ("haemorrhage",))
    export_engine(
        synthetic_checkpoint("tiny"),
        tmp_path / "engine",
        precision="fp32",
        block_size=32,
        scope=scope,
    )
    assert load_manifest(tmp_path / "engine").scope == scope


@pytest.mark.parametrize(("precision", "block_size"), [("int3", 32), ("int4", 48)])
def test_unknown_recipes_are_refused(tmp_path, precision, block_size):
    with pytest.raises(EngineError, match="expected one of"):
        export(synthetic_checkpoint("tiny"), tmp_path / "engine", precision, block_size)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_directory_is_left_alone(tmp_path):
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "mine").write_text("kept")
    with pytest.raises(ResourceError, match="exists already"):
        export(synthetic_checkpoint("tiny"), tmp_path / "engine")
    assert contents(tmp_path / "engine") == {"mine": b"kept"}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["layers.2.mlp.up_proj.weight", "post_layernorm.bias"])
def test_weights_that_are_not_finite_are_named(tiny_checkpoint, tmp_path, name, value):
    damaged = shutil.copytree(tiny_checkpoint, tmp_path / "damaged")
    tensors = load_file(damaged / "model.safetensors")
    (stored,) = (key for key in tensors if key.endswith(name))
    tensors[stored].flat[7] = value
    save_file(tensors, damaged / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"{name}' holds a value that is not finite"):
        export(open_checkpoint(str(damaged)), tmp_path / "engine")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_a_full_disk_leaves_nothing(tmp_path):
    """The size limit of files stands for the disk: both fail a write in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(ResourceError, match="could not write"):
            export(synthetic_checkpoint("tiny"), tmp_path / "engine")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_too_small_a_disk_is_refused_before_writing(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ResourceError, match=r"takes [\d.]+ MB and 1\.0 MB are free"):
        export(synthetic_checkpoint("tiny"), tmp_path / "engine", "fp32")
    assert list(tmp_path.iterdir()) == []


def test_graphs_pass_the_onnx_checker(tmp_path):
    """Standard operators are well formed; those of onnxruntime and quantised sizes are its own."""
    export(synthetic_checkpoint("tiny"), tmp_path / "engine")
    for name in ("vision.onnx", "decoder.onnx"):
        onnx.checker.check_model(str(tmp_path / "engine" / name))


@pytest.mark.parametrize(
    ("precision", "forbidden"),
    [("auto", {"torch", "transformers"}), ("fp32", {"torch", "transformers", "onnxruntime"})],
)
def test_export_imports_neither_torch_nor_transformers(
    tiny_checkpoint, tmp_path, precision, forbidden
):
    program = (
        "import sys\n"
        "from edge_medgemma.runtime.cli import cli\n"
        f"cli.main(['export', {str(tiny_checkpoint)!r}, '-o', {str(tmp_path / 'engine')!r},"
        f" '--block-size', '32', '--precision', {precision!r}],"
        " standalone_mode=False)\n"
        f"print(sorted({forbidden!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    *_, summary, modules = done.stdout.splitlines()
    assert modules == "[]"
    assert "GB in" in summary
    assert done.stderr == ""


def test_a_head_in_tiles_answers_as_one_in_one_piece(tiny_checkpoint, tmp_path, monkeypatch):
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    export(checkpoint, tmp_path / "whole")
    monkeypatch.setattr(ort_head, "HEAD_TILE_ROWS", 300)
    monkeypatch.setattr(ort_head, "HEAD_TILE_UNIT", 256)
    export(checkpoint, tmp_path / "tiled")
    graph = onnx.load(tmp_path / "tiled" / "decoder.onnx", load_external_data=False).graph
    for part in ("high", "low", "scales"):
        tiles = [i.name for i in graph.initializer if i.name.startswith(f"head.{part}.from_")]
        assert tiles == [f"head.{part}.from_{first}" for first in (0, 256, 512)]
    whole, tiled = (contents(tmp_path / name) for name in ("whole", "tiled"))
    assert whole["decoder.data"] == tiled["decoder.data"]  # the same bytes, cut differently
    answers = []
    for name in ("whole", "tiled"):
        with Engine.open(tmp_path / name) as engine:
            prefix = engine.new_prefix()
            prefix.extend(Chunk(tuple(range(5, 45)), 0))
            said = [step.token_id for step in prefix.generate([7], Sampling(), 12)]
            answers.append((prefix.score([[7, 8], [9]]), said))
    np.testing.assert_array_equal(answers[0][0], answers[1][0])
    assert answers[0][1] == answers[1][1]


def test_a_head_of_its_own_lies_in_planes_beside_the_decoder(tiny_checkpoint, tmp_path):
    untied = shutil.copytree(tiny_checkpoint, tmp_path / "untied")
    tensors = load_file(untied / "model.safetensors")
    name = next(name for name in tensors if name.endswith("embed_tokens.weight"))
    head = name.replace("model.embed_tokens", "lm_head")
    save_file(tensors | {head: tensors[name][::-1].copy()}, untied / "model.safetensors")
    config = json.loads((untied / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    (untied / "config.json").write_text(json.dumps(config))
    logits = []
    for precision in ("fp32", "int8"):
        manifest = export(open_checkpoint(str(untied)), tmp_path / precision, precision)
        with Engine.open(tmp_path / precision) as engine:
            prefix = engine.new_prefix()
            prefix.extend(Chunk(tuple(range(5, 45)), 0))
            logits.append(prefix.score([[7, 8], [9]]))
    assert (manifest.precision.embedding, manifest.precision.draft_head) == ("int8", "int4")
    difference = np.abs(logits[1] - logits[0])
    assert difference.max() < 0.2, f"max {difference.max():.3f}, mean {difference.mean():.3f}"
