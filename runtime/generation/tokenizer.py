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
        self._read(path.read_bytes(), tokens, f"'{path}'")

    @classmethod
    def of_json(cls, content: bytes, tokens: TokenSpec) -> "Tokenizer":
        """The tokenizer of a file's content.

        Raises:
            EngineError: it is not a tokenizer.
        """
        tokenizer = cls.__new__(cls)
        tokenizer._read(content, tokens, "tokenizer.json")
        return tokenizer

    def _read(self, content: bytes, tokens: TokenSpec, name: str) -> None:
        # `encode_special_tokens` is a switch of the whole tokenizer, hence one for each use.
        self._template = _open(content, name)
        self._plain = _open(content, name)
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
            ProtocolError: the text spells a control token, or is not Unicode text.
        """
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ProtocolError(
                "the text is not UTF-8; type it again, or check the terminal's encoding"
            )
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        forbidden = self.control_ids.intersection(ids)
        if forbidden:
            name = self._plain.id_to_token(min(forbidden))
            raise ProtocolError(f"the text holds the control token {name}; remove it and ask again")
        return ids

    def encode_template(self, text: str) -> list[int]:
        """Token ids of trusted text of the chat template, where control tokens are meant."""
        return self.encode_placed(text)[0]

    def encode_placed(self, text: str) -> tuple[list[int], list[int]]:
        """The same, and of each token where in the text it ends, in characters."""
        encoding = self._template.encode(text, add_special_tokens=False)
        return encoding.ids, [end for _, end in encoding.offsets]

    def encode_whole(self, text: str) -> list[int]:
        """Token ids of a whole prompt of trusted text, with what the file puts around a sequence."""
        ids: list[int] = self._template.encode(text, add_special_tokens=True).ids
        return ids

    def surroundings(self) -> tuple[list[int], list[int]]:
        """Token ids that the file puts before and behind a sequence, such as the first of all.

        Raises:
            EngineError: it leaves the sequence out.
        """
        inner = self.encode_template("a")
        whole = self.encode_whole("a")
        places = (i for i in range(len(whole)) if whole[i : i + len(inner)] == inner)
        before = next(places, None)
        if before is None:
            raise EngineError(
                "tokenizer.json has a post_processor that drops texts; take the tokenizer.json of "
                "the original model"
            )
        return whole[:before], whole[before + len(inner) :]

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

    def token_id(self, spelling: str) -> int | None:
        """Id of a token that is spelled so, None where none is."""
        token_id: int | None = self._plain.token_to_id(spelling)
        return token_id

    @property
    def size(self) -> int:
        """Number of ids with a spelling."""
        count: int = self._plain.get_vocab_size()
        return count


def _open(content: bytes, name: str) -> tokenizers.Tokenizer:
    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # noqa: BLE001 tokenizers raises bare Exception
        words = " ".join(str(error).split())[:200]
        raise EngineError(f"{name} is not a tokenizer ({words}); export the engine again") from None
    # What a tool left switched on would cut or lengthen every text.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
