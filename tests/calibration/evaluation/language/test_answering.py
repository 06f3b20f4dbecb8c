"""Free answers continue the very prompt: of a picture, or of text alone."""

from pathlib import Path

import numpy as np
from PIL import Image

from edge_medgemma.calibration.evaluation.language.answering import (
    GREEDY,
    answer_about,
    answer_text,
    picture_prefix,
)
from edge_medgemma.calibration.evaluation.language.pictures import read_picture
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.images import to_pixel_values
from edge_medgemma.runtime.generation.prompt import Chunk


def test_a_request_without_a_picture_is_read_like_any_prefix(tiny_engine: Engine) -> None:
    ids = tiny_engine.prompt.text("How are you?")
    prefix = tiny_engine.new_prefix()
    prefix.extend(Chunk(ids[:-1], 0), wants_logits=False)
    tokens = [step.token_id for step in prefix.generate(ids[-1:], GREEDY, 12)]
    found = answer_text(tiny_engine, "How are you?", 12)
    assert found.text == tiny_engine.tokenizer.decode(tokens).strip()
    assert found.tokens == len(tokens) > 0


def test_questions_about_a_picture_leave_it_as_it_was(tiny_engine: Engine) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    prefix = picture_prefix(tiny_engine, picture)
    first = answer_about(tiny_engine, prefix, "Is it normal?", 8)
    answer_about(tiny_engine, prefix, "What is shown here?", 8)
    assert answer_about(tiny_engine, prefix, "Is it normal?", 8) == first
    dark = picture_prefix(tiny_engine, np.zeros_like(picture))
    question = tiny_engine.prompt.question("Is it normal?")
    assert not np.array_equal(prefix.score([question]), dark.score([question]))


def test_answers_about_a_picture_are_those_of_transformers(
    tiny_engine: Engine, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Token by token, greedily, from the PNG to the answer."""
    import torch
    from transformers import Gemma3ForConditionalGeneration

    model = Gemma3ForConditionalGeneration.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    path = tmp_path / "picture.png"
    pixels = np.random.default_rng(1).integers(0, 255, (40, 60), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    picture = read_picture(path)
    prefix = picture_prefix(tiny_engine, picture)
    values = torch.tensor(to_pixel_values(picture[None], tiny_engine.manifest.vision))
    shown = [i for chunk in tiny_engine.prompt.picture_prefix() for i in chunk.ids]
    for text in ("Is it normal?", "What organ is this?"):
        question = tiny_engine.prompt.question(text)
        ids = torch.tensor([[*shown, *question]])
        expected = model.generate(
            input_ids=ids,
            pixel_values=values,
            token_type_ids=(ids == tiny_engine.manifest.tokens.image).long(),
            attention_mask=torch.ones_like(ids),
            max_new_tokens=12,
            do_sample=False,
        )[0, ids.shape[1] :].tolist()
        found = [step.token_id for step in prefix.generate(question, GREEDY, 12)]
        assert found == expected[: len(found)] and len(found) >= 10
