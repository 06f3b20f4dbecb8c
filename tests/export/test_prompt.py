"""The runtime's prompt is the one that transformers makes of the same conversation."""

from pathlib import Path

import numpy as np
import pytest
from support.processor_folder import prompt_builder, write_processor_folder
from transformers import AutoProcessor, AutoTokenizer

from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prompt import Turn


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


CONVERSATIONS = {
    "a text": [Turn("user", ("Is it normal?",))],
    "turns": [
        Turn("system", ("You read radiographs.",)),
        Turn("user", ("Hello.",)),
        Turn("assistant", ("Hello. What is it?",)),
        Turn("user", ("A chest.",)),
    ],
    "pictures between texts": [Turn("user", ("Before.", None, "between", None, "After."))],
    "a picture at the end": [Turn("user", ("What is this?", None))],
    "pictures alone": [Turn("user", (None, None))],
    "pictures in several turns": [
        Turn("system", ("Short answers.",)),
        Turn("user", (None, "What is this?")),
        Turn("assistant", ("A chest.",)),
        Turn("user", ("And this,", None, "a day later?")),
    ],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_is_what_the_processor_makes(tmp_path: Path, name: str) -> None:
    """Token ids of several turns and pictures, from the messages on, as by AutoProcessor."""
    turns = CONVERSATIONS[name]
    folder = write_processor_folder(tmp_path / "checkpoint")
    messages = [
        {
            "role": turn.role,
            "content": [
                {"type": "image", "image": np.zeros((20, 20, 3), np.uint8)}
                if part is None
                else {"type": "text", "text": part}
                for part in turn.parts
            ],
        }
        for turn in turns
    ]
    (expected,) = AutoProcessor.from_pretrained(folder).apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True
    )
    conversation = prompt_builder(folder).conversation(turns)
    chunks = conversation.chunks
    assert [*(i for chunk in chunks for i in chunk.ids), *conversation.ids] == list(expected)
    assert sum(chunk.images for chunk in chunks) == sum(turn.parts.count(None) for turn in turns)
    assert all(chunk.images < 2 for chunk in chunks) and conversation.ids
