"""The prompt of a scan: instruction, then every slice and its label, then the question.

Layout of Google's CT notebook (high_dimensional_ct_hugging_face.ipynb): one user turn, each image
*followed by* "SLICE n", the question last. So all but the question is a prefix that can be read
once and asked many times. Each text is tokenised on its own: no token spans prefix and question.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.generation.tokenizer import Tokenizer
from edge_medgemma.runtime.manifest import Manifest

IMAGE_PLACEHOLDER = "<start_of_image>"
"""Text that the Gemma 3 chat template writes for an image item."""

_SLOT = re.compile("(\ue000\\d+\ue001|" + re.escape(IMAGE_PLACEHOLDER) + ")")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens that are read together; an image never spans two chunks."""

    ids: tuple[int, ...]
    images: int


@dataclass(frozen=True, slots=True)
class _Piece:
    ids: tuple[int, ...]
    slot: int | None
    """Index of the text that stood here; None for template text, -1 for an image."""


class PromptBuilder:
    """Builds the token ids of a scan's prompt from the checkpoint's own chat template."""

    def __init__(self, tokenizer: Tokenizer, manifest: Manifest, template: str) -> None:
        """Compile `template`, the text of `chat_template.jinja`.

        Raises:
            EngineError: the template does not compile.
        """
        self._tokenizer = tokenizer
        self._tokens = manifest.tokens
        self._image_ids = (
            *tokenizer.encode_template("\n\n"),
            manifest.tokens.image_begin,
            *[manifest.tokens.image] * manifest.vision.tokens_per_image,
            manifest.tokens.image_end,
            *tokenizer.encode_template("\n\n"),
        )
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _raise_template_error
        try:
            self._template = environment.from_string(template)
        except jinja2.TemplateError as error:
            raise EngineError(
                f"the engine's chat template does not compile ({error}); export the engine again"
            ) from None

    @classmethod
    def open(cls, directory: Path, tokenizer: Tokenizer, manifest: Manifest) -> "PromptBuilder":
        """The builder of an engine directory, from its `chat_template.jinja`."""
        template = (directory / "chat_template.jinja").read_text(encoding="utf-8")
        return cls(tokenizer, manifest, template)

    def prefix(self, instruction: str, slices: int) -> tuple[Chunk, ...]:
        """The opening with the instruction, then one chunk per slice: image and "SLICE n".

        Raises:
            ProtocolError: the instruction spells a control token.
        """
        chunks: list[Chunk] = []
        ids: list[int] = []
        images = 0
        for piece in self._pieces(instruction, slices, "?"):
            if piece.slot == slices + 1:
                break
            if piece.slot == -1:
                chunks.append(Chunk(tuple(ids), images))
                ids, images = [], 1
            ids.extend(piece.ids)
        chunks.append(Chunk(tuple(ids), images))
        return tuple(chunks)

    def question(self, text: str) -> tuple[int, ...]:
        """The question, the end of the user's turn and the opening of the model's.

        Raises:
            ProtocolError: the question spells a control token.
        """
        pieces = self._pieces("", 1, text)
        last = next(i for i, piece in enumerate(pieces) if piece.slot == 2)
        return tuple(i for piece in pieces[last:] for i in piece.ids)

    def text(self, text: str) -> tuple[int, ...]:
        """A whole prompt without images: one user turn and the opening of the model's."""
        content = [{"type": "text", "text": _slot(0)}]
        return tuple(i for piece in self._render(content, [text]) for i in piece.ids)

    def _pieces(self, instruction: str, slices: int, question: str) -> list[_Piece]:
        texts = [instruction, *(f"SLICE {n}" for n in range(1, slices + 1)), question]
        content = [{"type": "text", "text": _slot(0)}]
        for n in range(1, slices + 1):
            content += [{"type": "image"}, {"type": "text", "text": _slot(n)}]
        content.append({"type": "text", "text": _slot(slices + 1)})
        return self._render(content, texts)

    def _render(self, content: list[dict[str, str]], texts: list[str]) -> list[_Piece]:
        try:
            rendered = self._template.render(
                messages=[{"role": "user", "content": content}],
                add_generation_prompt=True,
                bos_token=self._tokenizer.token(self._tokens.bos),
            )
        except jinja2.TemplateError as error:
            raise EngineError(
                f"the engine's chat template failed ({error}); export the engine again"
            ) from None
        pieces = []
        for part in _SLOT.split(rendered):
            if part == IMAGE_PLACEHOLDER:
                pieces.append(_Piece(self._image_ids, -1))
            elif part.startswith("\ue000"):
                slot = int(part[1:-1])
                ids = self._tokenizer.encode(texts[slot].strip())
                pieces.append(_Piece(tuple(ids), slot))
            elif part:
                pieces.append(_Piece(tuple(self._tokenizer.encode_template(part)), None))
        if sum(piece.slot not in (None, -1) for piece in pieces) != len(texts):
            raise EngineError(
                "the engine's chat template drops or repeats texts; expected Gemma 3's template"
            )
        return pieces


def _slot(index: int) -> str:
    return f"\ue000{index}\ue001"


def _raise_template_error(message: str) -> None:
    raise jinja2.TemplateError(message)
