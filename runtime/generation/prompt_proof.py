"""Proof that a chat template and a tokenizer make the prompt that the model was trained on.

It renders a message of two images and says what is wrong with the token ids. A template that leaves
the images out would otherwise answer blind, and nothing would look amiss.
"""

import re
from collections.abc import Sequence

from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.generation.prompt import (
    HINT,
    PromptBuilder,
    content_of,
    scan_texts,
)

_MARKER = re.compile(r"<[|/]?[A-Za-z]\w*[|]?>")
"""What chat templates put around turns: <start_of_turn>, <|im_end|>, </s>"""

_SENTENCE = (
    'Look at "both" slices & say: is <5 mm\u00a0of the pari\u00e9tal lobe 100% white?\n\n  Answer.'
)
_INSTRUCTION = " ".join(f"{number}. {_SENTENCE}" for number in range(1, 25))
_QUESTION = f"Is it so? {_SENTENCE}"
_IMAGES = 2


def prove_prompt(builder: PromptBuilder, vocabulary: int, *, in_one_piece: bool) -> None:
    """Check the prompts of `builder`.

    Args:
        builder: of the template and the tokenizer
        vocabulary: embedding rows of the model
        in_one_piece: the model was trained on prompts that were tokenised as one text; one of this
            project's own was trained on the pieces that `builder` joins

    Raises:
        EngineError: what a prompt lacks or has too much of.
    """
    for texts in (scan_texts(_INSTRUCTION, _IMAGES, _QUESTION), [_QUESTION]):
        ids, rendered = _prove(builder, texts)
        if in_one_piece:
            _require_equal(ids, _whole(builder, rendered))
        if max(ids, default=0) >= vocabulary:
            raise EngineError(
                f"the prompt has the token {max(ids)} and the model {vocabulary} embedding rows; "
                "take the tokenizer.json and the chat template of the original model"
            )


def _prove(builder: PromptBuilder, texts: Sequence[str]) -> tuple[list[int], str]:
    """Token ids and text of a prompt that has all it should."""
    if len(texts) > 1:
        chunks = builder.prefix(texts[0], _IMAGES)
        ids = [*(i for chunk in chunks for i in chunk.ids), *builder.question(texts[-1])]
    else:
        ids = list(builder.text(texts[0]))
    rendered = builder.template.render(content_of(texts))
    for text in texts:
        if rendered.count(text) != 1:
            raise _problem(f"changes a text of {len(text)} characters, or repeats it")
    _require_first_token(builder, ids)
    _require_images(builder, ids, len(texts) - 2 if len(texts) > 1 else 0)
    _require_markers(builder, rendered, texts)
    _require_answer_opened(builder, rendered, texts, ids)
    return ids, rendered


def _whole(builder: PromptBuilder, rendered: str) -> list[int]:
    """Token ids of the prompt in one piece, as `Gemma3Processor` makes them."""
    text = builder.expanded(rendered)
    if builder.brings_first_token(rendered):
        return builder.tokenizer.encode_template(text)
    return builder.tokenizer.encode_whole(text)


def _require_first_token(builder: PromptBuilder, ids: Sequence[int]) -> None:
    bos = builder.tokens.bos
    count = ids.count(bos)
    if count != 1 or ids[0] != bos:
        name = builder.tokenizer.token(bos)
        where = "not at the beginning" if count == 1 else f"{count} times"
        raise EngineError(
            f"the chat template and tokenizer.json write {name} {where}; it must stand once, at "
            f"the beginning: {HINT} and its tokenizer.json"
        )


def _require_images(builder: PromptBuilder, ids: Sequence[int], images: int) -> None:
    """Every image is its begin, its tokens and its end, and none of these stands elsewhere."""
    tokens, length = builder.tokens, builder.tokens_per_image
    block = [tokens.image_begin, *[tokens.image] * length, tokens.image_end]
    begins = [i for i, one in enumerate(ids) if one == tokens.image_begin]
    whole = sum(list(ids[begin : begin + len(block)]) == block for begin in begins)
    of_images = sum(one in block[:2] or one == tokens.image_end for one in ids)
    if whole != images or of_images != images * len(block):
        raise _problem(
            f"makes {whole} whole images of {images}, and {of_images} tokens of images where "
            f"{images * len(block)} belong"
        )


def _require_equal(ids: Sequence[int], whole: Sequence[int]) -> None:
    """The pieces that a prompt is made of must be the tokens of its text."""
    if list(ids) != list(whole):
        pairs = enumerate(zip(ids, whole, strict=False))
        first = next((i for i, (ours, other) in pairs if ours != other), min(len(ids), len(whole)))
        raise _problem(
            f"joins texts without a boundary, so that tokens span them: token {first} of {len(ids)} "
            "is another one when the prompt is read as a whole"
        )


def _require_markers(builder: PromptBuilder, rendered: str, texts: Sequence[str]) -> None:
    """Marks of turns are tokens of their own, not spelled out in letters."""
    for text in texts:
        rendered = rendered.replace(text, " ")
    for marker in sorted(set(_MARKER.findall(rendered))):
        if len(builder.tokenizer.encode_template(marker)) != 1:
            raise _problem(f"writes {marker}, which tokenizer.json does not have as one token")


def _require_answer_opened(
    builder: PromptBuilder, rendered: str, texts: Sequence[str], ids: Sequence[int]
) -> None:
    """Behind the question the user's turn ends and the model's begins, and nothing follows."""
    closed = builder.template.render(content_of(texts), opens_answer=False)
    opening = rendered.removeprefix(closed) if rendered.startswith(closed) else ""
    if not opening.strip():
        # A template may always open the answer: then the end of the user's turn is behind it.
        tail = rendered.rpartition(texts[-1])[2]
        ends = [name for i in builder.tokens.stop if (name := builder.tokenizer.token(i))]
        opening = max((tail.rpartition(end)[2] for end in ends if end in tail), default="", key=len)
    last = builder.tokenizer.encode_template(opening)
    if not opening.strip() or list(ids[-len(last) :]) != last:
        raise _problem("does not end with the opening of the model's turn")
    if set(last) & set(builder.tokens.stop):
        raise _problem("ends the answer before it begins")


def _problem(words: str) -> EngineError:
    return EngineError(f"the chat template {words}; {HINT}")
