import pytest

from edge_medgemma.runtime.errors import ProtocolError
from edge_medgemma.runtime.generation.engine import Engine


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
