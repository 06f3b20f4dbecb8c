"""The runtime's prompt is the one that transformers makes of the same conversation."""

from pathlib import Path

from transformers import AutoTokenizer

from edge_medgemma.runtime.generation.engine import Engine


def test_chunks_and_question_are_what_the_processor_makes(
    tiny_engine: Engine, tiny_checkpoint: Path
) -> None:
    """Token ids equal those of transformers' tokenizer over its own chat template."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    content = [
        {"type": "text", "text": "Review these."},
        {"type": "image"},
        {"type": "text", "text": "SLICE 1"},
        {"type": "text", "text": "Is it normal?"},
    ]
    template = (tiny_checkpoint / "chat_template.jinja").read_text()
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}],
        chat_template=template,
        add_generation_prompt=True,
        tokenize=False,
    )
    block = "\n\n<start_of_image>" + "<image_soft_token>" * 16 + "<end_of_image>\n\n"
    expected = tokenizer(
        text.replace("<start_of_image>", block), add_special_tokens=False
    ).input_ids
    chunks = tiny_engine.prompt.prefix("Review these.", 1)
    ids = [i for chunk in chunks for i in chunk.ids]
    assert [*ids, *tiny_engine.prompt.question("Is it normal?")] == expected


def test_a_picture_is_asked_about_as_the_processor_would(
    tiny_engine: Engine, tiny_checkpoint: Path
) -> None:
    """One user turn, the image, then the text: the layout of Google's notebooks of one picture."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    text = tokenizer.apply_chat_template(
        [
            {
                "role": "user",
                "content": [{"type": "image"}, {"type": "text", "text": "Is it normal?"}],
            }
        ],
        chat_template=(tiny_checkpoint / "chat_template.jinja").read_text(),
        add_generation_prompt=True,
        tokenize=False,
    )
    block = "\n\n<start_of_image>" + "<image_soft_token>" * 16 + "<end_of_image>\n\n"
    expected = tokenizer(
        text.replace("<start_of_image>", block), add_special_tokens=False
    ).input_ids
    chunks = tiny_engine.prompt.picture_prefix()
    assert [chunk.images for chunk in chunks] == [0, 1]
    ids = [i for chunk in chunks for i in chunk.ids]
    assert [*ids, *tiny_engine.prompt.question("Is it normal?")] == expected
