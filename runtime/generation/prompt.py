"""The prompt of a scan: instruction, then every slice and its label, then the question.

Layout of Google's CT notebook (high_dimensional_ct_hugging_face.ipynb): one user turn, each image
*followed by* "SLICE n", the question last. So all but the question is a prefix that can be read
once and asked many times. Each text is tokenised on its own: no token spans prefix and question.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_medgemma.runtime.errors import EngineError, ProtocolError
from edge_medgemma.runtime.generation.chat_template import IMAGE_ITEM, ChatTemplate, Content
from edge_medgemma.runtime.generation.tokenizer import Tokenizer
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.model_shape import TokenSpec

_SLOT = re.compile("\ue000(\\d+)\ue001")

HINT = "take the chat template of the original model"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens that are read together; an image never spans two chunks."""

    ids: tuple[int, ...]
    images: int


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation."""

    role: str
    """`system`, `user` or `assistant`."""
    parts: tuple[str | None, ...]
    """Texts in order; None is a picture."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Tokens of a conversation up to the opening of the model's next turn."""

    chunks: tuple[Chunk, ...]
    """Up to the end of the last picture; none without pictures."""
    ids: tuple[int, ...]
    """What follows."""

    @property
    def num_tokens(self) -> int:
        """All of them."""
        return sum(len(chunk.ids) for chunk in self.chunks) + len(self.ids)


def scan_texts(instruction: str, slices: int, question: str) -> list[str]:
    """The texts of a scan's message: instruction, a label behind each image, question."""
    return [instruction, *(f"SLICE {number}" for number in range(1, slices + 1)), question]


def content_of(texts: Sequence[str]) -> Content:
    """A message of texts, with an image before each but the first and the last."""
    items = [{"type": "text", "text": text} for text in texts]
    labels = [item for label in items[1:-1] for item in (IMAGE_ITEM, label)]
    return [items[0], *labels, *items[1:][-1:]]


def _picture_content(texts: Sequence[str]) -> Content:
    """A message of one image and the text behind it."""
    return [IMAGE_ITEM, {"type": "text", "text": texts[-1]}]


@dataclass(frozen=True, slots=True)
class _Piece:
    ids: tuple[int, ...]
    slot: int | None
    """Index of the text that stood here; None for template text, -1 where an image begins."""


class PromptBuilder:
    """Builds the token ids of a scan's prompt from the checkpoint's own chat template."""

    def __init__(
        self, tokenizer: Tokenizer, tokens: TokenSpec, tokens_per_image: int, template: str
    ) -> None:
        """Compile `template`, the text of `chat_template.jinja`.

        Raises:
            EngineError: the template does not compile.
        """
        self.tokenizer = tokenizer
        self.tokens = tokens
        self.tokens_per_image = tokens_per_image
        self.template = ChatTemplate(template, _special_tokens(tokenizer, tokens))
        begin, image, end = (
            _spelling(tokenizer, one)
            for one in (tokens.image_begin, tokens.image, tokens.image_end)
        )
        self._image = begin
        self._expanded = f"\n\n{begin}{image * tokens_per_image}{end}\n\n"

    @classmethod
    def open(cls, directory: Path, tokenizer: Tokenizer, manifest: Manifest) -> "PromptBuilder":
        """The builder of an engine directory, from its `chat_template.jinja`."""
        try:
            template = (directory / "chat_template.jinja").read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise EngineError("chat_template.jinja is not UTF-8; export the engine again") from None
        return cls(tokenizer, manifest.tokens, manifest.vision.tokens_per_image, template)

    def prefix(self, instruction: str, slices: int) -> tuple[Chunk, ...]:
        """The opening with the instruction, then one chunk per slice: image and "SLICE n".

        Raises:
            EngineError: the template does not show every text and image once and in order.
            ProtocolError: the instruction spells a control token.
        """
        return self._chunks(scan_texts(instruction, slices, "?"))

    def picture_prefix(self) -> tuple[Chunk, ...]:
        """The opening, then a single image without a label, of which `question` asks.

        The order of Google's notebooks of one picture (cxr_anatomy_localization_with_hugging_face.ipynb):
        one user turn, the image, then the text.

        Raises:
            EngineError: the template does not show every text and image once and in order.
        """
        return self._chunks(["?"], _picture_content)

    def question(self, text: str) -> tuple[int, ...]:
        """The question, the end of the user's turn and the opening of the model's.

        Raises:
            EngineError: the template does not show every text and image once and in order.
            ProtocolError: the question is empty or spells a control token.
        """
        if not text.strip():
            raise ProtocolError("the question is empty; write what you want to know of the scan")
        pieces = self._pieces(scan_texts("", 1, text))
        last = next(i for i, piece in enumerate(pieces) if piece.slot == 2)
        return tuple(i for piece in pieces[last:] for i in piece.ids)

    def text(self, text: str) -> tuple[int, ...]:
        """A whole prompt without images: one user turn and the opening of the model's."""
        return tuple(i for piece in self._pieces([text]) for i in piece.ids)

    def conversation(self, turns: Sequence[Turn]) -> Conversation:
        """The tokens of a conversation, as the checkpoint's template writes it.

        Raises:
            EngineError: the template does not show every text and picture once and in order.
            ProtocolError: a text spells a control token.
        """
        texts = [part for turn in turns for part in turn.parts if part is not None]
        slots = iter(_slots(len(texts)))
        messages = [
            (
                turn.role,
                [
                    IMAGE_ITEM if part is None else {"type": "text", "text": next(slots)}
                    for part in turn.parts
                ],
            )
            for turn in turns
        ]
        rendered = self.template.render_turns(messages)
        self._require_order(rendered, [item for _, content in messages for item in content])
        *chunks, last = _cut(self._pieces_of(rendered, texts))
        if not last.images:
            return Conversation(tuple(chunks), last.ids)
        end = len(last.ids) - last.ids[::-1].index(self.tokens.image_end)
        return Conversation((*chunks, Chunk(last.ids[:end], last.images)), last.ids[end:])

    def expanded(self, rendered: str) -> str:
        """A rendered prompt with every image as the tokens that stand for it."""
        return rendered.replace(self._image, self._expanded)

    def brings_first_token(self, rendered: str) -> bool:
        """Whether the template wrote the begin-of-sequence token; else the tokenizer adds its own."""
        return rendered.startswith(self.tokenizer.token(self.tokens.bos) or "\0")

    def _chunks(
        self, texts: Sequence[str], arrange: Callable[[Sequence[str]], Content] = content_of
    ) -> tuple[Chunk, ...]:
        """All of a prompt up to its last text, cut before each image."""
        last = len(texts) - 1
        return _cut(itertools.takewhile(lambda one: one.slot != last, self._pieces(texts, arrange)))

    def _pieces(
        self, texts: Sequence[str], arrange: Callable[[Sequence[str]], Content] = content_of
    ) -> list[_Piece]:
        """The prompt of the message that `arrange` makes of texts.

        The template sees a mark in place of each text: what it makes of marks it makes of any text,
        and a text is never read as part of the template.
        """
        content = arrange(_slots(len(texts)))
        rendered = self.template.render(content)
        self._require_order(rendered, content)
        return self._pieces_of(rendered, texts)

    def _pieces_of(self, rendered: str, texts: Sequence[str]) -> list[_Piece]:
        """The rendered prompt with each text in place of its mark."""
        has_first_token = self.brings_first_token(rendered)
        before, behind = ([], []) if has_first_token else self.tokenizer.surroundings()
        pieces = [_Piece(tuple(before), None)]
        for place, part in enumerate(_SLOT.split(rendered)):
            if place % 2:
                ids = self.tokenizer.encode(texts[int(part)].strip())
                pieces.append(_Piece(tuple(ids), int(part)))
            else:
                pieces += self._template_pieces(part)
        return [*pieces, _Piece(tuple(behind), None)]

    def _template_pieces(self, text: str) -> list[_Piece]:
        """Template text, cut before the tokens of each image; tokenised as one, as transformers does."""
        literals = text.split(self._image)
        ids, ends = self.tokenizer.encode_placed(self._expanded.join(literals))
        cuts = []
        begin = 0
        for literal in literals[:-1]:
            begin += len(literal)
            cuts.append(next((i for i, end in enumerate(ends) if end > begin), len(ids)))
            begin += len(self._expanded)
        bounds = [0, *cuts, len(ids)]
        return [
            _Piece(tuple(ids[start:stop]), -1 if number else None)
            for number, (start, stop) in enumerate(itertools.pairwise(bounds))
        ]

    def _require_order(self, rendered: str, content: Content) -> None:
        """Refuse a template that drops, repeats or moves a text or an image."""
        pattern = re.compile(f"{_SLOT.pattern}|{re.escape(self._image)}")
        found = [match.group() for match in pattern.finditer(rendered)]
        expected = [item.get("text", self._image) for item in content]
        slots = [item["text"] for item in content if "text" in item]
        if found == expected:
            return
        images = expected.count(self._image)
        if found.count(self._image) != images:
            problem = f"shows {found.count(self._image)} of {images} images"
        elif missing := sum(slot not in found for slot in slots):
            problem = f"leaves out {missing} of {len(slots)} texts"
        elif len(found) > len(expected):
            problem = "repeats a text"
        else:
            problem = "moves texts or images from where they stand in the message"
        raise EngineError(
            f"the chat template {problem}; every text and image must stand once, in order: {HINT}"
        )


def _slots(count: int) -> list[str]:
    return [f"\ue000{index}\ue001" for index in range(count)]


def _cut(pieces: Iterable[_Piece]) -> tuple[Chunk, ...]:
    """Pieces as chunks, cut before each image."""
    chunks: list[Chunk] = []
    ids: list[int] = []
    images = 0
    for piece in pieces:
        if piece.slot == -1:
            chunks.append(Chunk(tuple(ids), images))
            ids, images = [], 1
        ids.extend(piece.ids)
    return (*chunks, Chunk(tuple(ids), images))


def _special_tokens(tokenizer: Tokenizer, tokens: TokenSpec) -> dict[str, str]:
    """What a template may name, as transformers hands it the tokenizer's special tokens."""
    ids = {
        "bos_token": tokens.bos,
        "eos_token": tokens.eos,
        "pad_token": tokens.pad,
        "boi_token": tokens.image_begin,
        "eoi_token": tokens.image_end,
        "image_token": tokens.image,
    }
    spelled = {name: tokenizer.token(one) for name, one in ids.items() if one is not None}
    return {name: spelling for name, spelling in spelled.items() if spelling is not None}


def _spelling(tokenizer: Tokenizer, token_id: int) -> str:
    spelling = tokenizer.token(token_id)
    if not spelling:
        raise EngineError(
            f"tokenizer.json has no token of id {token_id}, which stands around or for an image; "
            "take the tokenizer.json of the original model"
        )
    return spelling
