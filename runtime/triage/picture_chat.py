"""A conversation about pictures, or about none, without a scan."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import EngineError, ProtocolError
from edge_medgemma.runtime.generation.answer_pieces import AnswerPiece, answer_pieces
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.prompt import Chunk, Conversation, Turn
from edge_medgemma.runtime.generation.sampling import Sampling
from edge_medgemma.runtime.triage.chat_session import GREEDY
from edge_medgemma.runtime.triage.progress import Progress, no_progress
from edge_medgemma.runtime.triage.scoring.grounds import scope_words

Pictures = Sequence[NDArray[np.uint8]]
"""Each [rows, columns, 3]; their sizes may differ."""


def require_free_questions(engine: Engine) -> None:
    """Refuse an engine that was made for a few findings of one kind of scan.

    Raises:
        EngineError: it has a scope; nothing outside it is ever asked.
    """
    scope = engine.manifest.scope
    if scope is not None:
        raise EngineError(
            f"'{engine.manifest.source.name}' was made for {scope_words(scope)} and a few findings alone "
            "and answers no other question; name an engine that was exported from a MedGemma "
            "checkpoint with --engine"
        )


def prefill_pictures(
    engine: Engine,
    chunks: Sequence[Chunk],
    pictures: Pictures,
    on_progress: Progress = no_progress,
) -> Prefix:
    """A prefix of texts and pictures, the pictures preprocessed as the checkpoint's processor does.

    Args:
        engine: encodes and prefills
        chunks: one picture at most in each, in the order of `pictures`
        pictures: to be shown
        on_progress: called with the stages `vision` and `prefill`

    Raises:
        ResourceError: too little memory.
        EngineError: more tokens than the engine has positions for.
    """
    if pictures:
        rows, columns = (max(one.shape[axis] for one in pictures) for axis in (0, 1))
        engine.require_memory(len(pictures), (rows, columns))
        on_progress("vision", 0, len(pictures))
    features = []
    for done, picture in enumerate(pictures, start=1):
        features.append(engine.encode_images(picture[None]))
        on_progress("vision", done, len(pictures))
    prefix = engine.new_prefix(sum(len(chunk.ids) for chunk in chunks))
    remaining = iter(features)
    for done, chunk in enumerate(chunks, start=1):
        prefix.extend(chunk, next(remaining) if chunk.images else None, wants_logits=False)
        on_progress("prefill", done, len(chunks))
    prefix.compact()
    return prefix


@dataclass(frozen=True, slots=True)
class PictureChat:
    """A conversation that was read, ready to be answered."""

    engine: Engine
    prefix: Prefix
    conversation: Conversation

    def answer(self, sampling: Sampling = GREEDY, max_tokens: int = 512) -> Iterator[AnswerPiece]:
        """The model's next turn, piece by piece."""
        engine, ids = self.engine, self.conversation.ids
        tokens = engine.manifest.tokens
        return answer_pieces(self.prefix, ids, engine.tokenizer, tokens, sampling, max_tokens)


def open_chat(
    engine: Engine,
    turns: Sequence[Turn],
    pictures: Pictures,
    on_progress: Progress = no_progress,
) -> PictureChat:
    """Read a conversation up to the opening of the model's turn.

    Args:
        engine: an engine without a scope
        turns: as many pictures in them as in `pictures`, in the same order
        pictures: to be shown
        on_progress: called with the stages `vision` and `prefill`

    Raises:
        EngineError: the engine was made for a few findings alone, or its template refuses the turns.
        ProtocolError: a text spells a control token, or all is more tokens than there are positions.
        ResourceError: too little memory for so many pictures.
    """
    require_free_questions(engine)
    conversation = engine.prompt.conversation(turns)
    limit = engine.manifest.text.max_positions
    if conversation.num_tokens >= limit:
        raise ProtocolError(
            f"the messages are {conversation.num_tokens:,} tokens, the engine reads {limit:,}; send "
            "fewer pictures or less text"
        )
    prefix = prefill_pictures(engine, conversation.chunks, pictures, on_progress)
    return PictureChat(engine, prefix, conversation)
