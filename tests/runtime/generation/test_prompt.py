import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.errors import EngineError, ProtocolError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prompt import PromptBuilder
from edge_medgemma.runtime.manifest import FileRecord, dump_manifest, load_manifest


def _spelled(engine: Engine, ids) -> str:
    image = engine.manifest.tokens.image
    return "".join("*" if i == image else _text(engine, i) for i in ids)


def _text(engine: Engine, token_id: int) -> str:
    if token_id in engine.tokenizer.control_ids:
        return engine.tokenizer.token(token_id) or ""
    return engine.tokenizer.decode([token_id])


def test_layout_is_the_notebooks(tiny_engine: Engine) -> None:
    chunks = tiny_engine.prompt.prefix("  Review these.\n", 2)
    block = "\n\n<start_of_image>" + "*" * 16 + "<end_of_image>\n\n"
    assert [_spelled(tiny_engine, chunk.ids) for chunk in chunks] == [
        "<bos><start_of_turn>user\nReview these.",
        f"{block}SLICE 1",
        f"{block}SLICE 2",
    ]
    assert [chunk.images for chunk in chunks] == [0, 1, 1]
    question = _spelled(tiny_engine, tiny_engine.prompt.question("\n\nIs it normal?"))
    assert question == "Is it normal?<end_of_turn>\n<start_of_turn>model\n"


@pytest.mark.parametrize(
    "text",
    ["<end_of_turn>", "a<start_of_turn>model", "<image_soft_token>", "<bos>", "<unused94>x"],
)
def test_control_tokens_never_come_out_of_text(tiny_engine: Engine, text: str) -> None:
    try:
        ids = tiny_engine.tokenizer.encode(text)
    except ProtocolError as error:
        assert "control token" in str(error)
    else:
        assert not tiny_engine.tokenizer.control_ids.intersection(ids)


@pytest.mark.parametrize("question", ["", " \n"])
def test_an_empty_question_is_refused_by_one_line(
    tiny_engine_directory: Path, tmp_path: Path, question: str
) -> None:
    arguments = ["ask", str(tmp_path), question, "--engine", str(tiny_engine_directory)]
    result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, ProtocolError)
    assert "the question is empty" in str(result.exception)


def test_a_text_that_is_not_unicode_is_refused_by_one_line(
    tiny_engine_directory: Path, tmp_path: Path
) -> None:
    arguments = ["ask", str(tmp_path), "is it \udcff", "--engine", str(tiny_engine_directory)]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, ProtocolError)
    assert "not UTF-8" in str(result.exception)


def _blind(template: str) -> str:
    blind = template.replace("'<start_of_image>'", "''")
    assert blind != template
    return blind


def test_a_builder_shows_every_image_or_refuses(
    tiny_engine: Engine, tiny_engine_directory: Path
) -> None:
    template = (tiny_engine_directory / "chat_template.jinja").read_text(encoding="utf-8")
    tokens, length = tiny_engine.manifest.tokens, tiny_engine.manifest.vision.tokens_per_image
    builder = PromptBuilder(tiny_engine.tokenizer, tokens, length, _blind(template))
    with pytest.raises(EngineError, match="shows 0 of 5 images"):
        builder.prefix("Look.", 5)
    with pytest.raises(EngineError, match="shows 0 of 1 images"):
        builder.question("Is it normal?")
    assert builder.text("Is it normal?") == tiny_engine.prompt.text("Is it normal?")


def test_an_engine_with_a_template_that_is_blind_does_not_open(
    tiny_engine_directory: Path, tmp_path: Path
) -> None:
    """Even where whoever replaced the template sealed the manifest anew."""
    directory = shutil.copytree(tiny_engine_directory, tmp_path / "engine")
    path = directory / "chat_template.jinja"
    path.write_text(_blind(path.read_text(encoding="utf-8")), encoding="utf-8")
    manifest = load_manifest(directory)
    data = path.read_bytes()
    record = FileRecord(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    sealed = dump_manifest(replace(manifest, files={**manifest.files, path.name: record}))
    (directory / "manifest.json").write_text(sealed, encoding="utf-8")
    with pytest.raises(EngineError, match="shows 0 of 2 images"):
        Engine.open(directory)
