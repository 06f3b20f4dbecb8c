"""Text to token ids and back, with the control tokens out of reach of any text."""

import re
from collections.abc import Sequence
from pathlib import Path

import tokenizers

from edge_medgemma.runtime.errors import EngineError, ProtocolError
from edge_medgemma.runtime.model_shape import TokenSpec

CONTROL_TOKEN = re.compile(r"<(pad|eos|bos|mask|unused\d+|(start|end)_of_\w+|image_soft_token)>")
"""Gemma 3 tokens that steer the model, whether or not the file marks them as special."""


class Tokenizer:
    """`tokenizer.json` of an engine directory."""

    def __init__(self, path: Path, tokens: TokenSpec) -> None:
        """Read the file.

        Raises:
            EngineError: the file is not a tokenizer.
        """
        try:
            # `encode_special_tokens` is a switch of the whole tokenizer, hence one for each use.
            self._template = tokenizers.Tokenizer.from_file(str(path))
            self._plain = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001 tokenizers raises bare Exception
            raise EngineError(
                f"'{path}' is not a tokenizer ({error}); export the engine again"
            ) from None
        self._plain.encode_special_tokens = True
        named = {tokens.bos, tokens.pad, tokens.image, tokens.image_begin, tokens.image_end}
        self.control_ids = frozenset(
            named
            | set(tokens.stop)
            | {
                token_id
                for token_id, token in self._plain.get_added_tokens_decoder().items()
                if token.special or CONTROL_TOKEN.fullmatch(token.content)
            }
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text, without a begin-of-sequence token.

        Raises:
            ProtocolError: the text spells a control token.
        """
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        forbidden = self.control_ids.intersection(ids)
        if forbidden:
            name = self._plain.id_to_token(min(forbidden))
            raise ProtocolError(f"the text holds the control token {name}; remove it and ask again")
        return ids

    def encode_template(self, text: str) -> list[int]:
        """Token ids of trusted text of the chat template, where control tokens are meant."""
        ids: list[int] = self._template.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids; control tokens leave no trace."""
        text: str = self._plain.decode(
            [i for i in ids if i not in self.control_ids], skip_special_tokens=True
        )
        return text

    def token(self, token_id: int) -> str | None:
        """Spelling of one token, None for an id without one."""
        spelling: str | None = self._plain.id_to_token(token_id)
        return spelling

    @property
    def size(self) -> int:
        """Number of ids with a spelling."""
        count: int = self._plain.get_vocab_size()
        return count
