"""Tokens that the model may choose next: a JSON schema, a regular expression or a choice as a token mask.

llguidance (MIT, one abi3 wheel of 3 MB per platform, no dependencies) rather than xgrammar, whose
wheel pulls in torch and transformers.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import AnswerError, ProtocolError
from edge_medgemma.runtime.manifest import Manifest

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

JSON_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""White space as `json.dumps` writes it: a free choice of white space would cost tokens and invite loops."""


class Constraint(Protocol):
    """Mask of the tokens allowed next, asked before each token; one object serves one answer."""

    def forced(self) -> Sequence[int]:
        """The only tokens that can follow, a stop id where nothing may; empty where there is a choice."""
        ...

    def allowed(self) -> NDArray[np.bool_]:
        """[vocabulary]: which tokens may follow; at least one."""
        ...

    def accept(self, token_id: int) -> None:
        """Go on after a token; a stop id is never passed."""
        ...


class GrammarConstraint:
    """A grammar for the answer; reasoning ahead of it stays free.

    The model may open a thought with its first token. Inside, every ordinary token is allowed and
    the end of the turn is not; `thought_tokens` tokens after its begin the thought is closed by
    force, so that a missing end marker cannot eat up the answer.
    """

    def __init__(
        self, matcher: "LLMatcher", manifest: Manifest, control: Sequence[int], thought_tokens: int
    ) -> None:
        """Use `Grammars`, which compiles the matcher.

        Args:
            matcher: at the begin of the answer.
            manifest: of the engine.
            control: ids that no text may hold.
            thought_tokens: longest reasoning; 0 forbids it.
        """
        self._matcher = matcher
        self._tokens = manifest.tokens
        self._ordinary = np.ones(manifest.text.vocabulary, np.bool_)
        self._ordinary[list(control)] = False
        self._thought_tokens_left = thought_tokens
        self._is_thought = False
        has_markers = None not in (self._tokens.thought_begin, self._tokens.thought_end)
        self._may_think = has_markers and thought_tokens > 0

    def forced(self) -> Sequence[int]:
        """See `Constraint`.

        Raises:
            AnswerError: the grammar became too complex to follow.
        """
        if self._is_thought:
            end = self._tokens.thought_end
            return (end,) if end is not None and self._thought_tokens_left == 0 else ()
        if self._matcher.is_error():
            reason = " ".join(self._matcher.get_error().split())
            raise AnswerError(f"the schema cannot be followed any further ({reason}); simplify it")
        if self._may_think:
            return ()
        if self._matcher.is_stopped():
            return (self._tokens.stop[0],)
        forced = self._matcher.compute_ff_tokens()
        # Ids beyond a gap of a synthetic vocabulary are unknown to the trie.
        return forced[: self._matcher.validate_tokens(forced)]

    def allowed(self) -> NDArray[np.bool_]:
        """See `Constraint`."""
        if self._is_thought:
            mask = self._ordinary.copy()
            mask[self._tokens.thought_end] = True
            return mask
        packed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        mask = np.unpackbits(packed, bitorder="little")[: len(self._ordinary)].view(np.bool_)
        may_stop = mask[list(self._tokens.stop)]
        # Gemma's file does not mark every control token as special, so they could pass as text.
        mask &= self._ordinary
        mask[list(self._tokens.stop)] = may_stop
        if self._may_think:
            mask[self._tokens.thought_begin] = True
        return mask

    def accept(self, token_id: int) -> None:
        """See `Constraint`.

        Raises:
            ValueError: the token is not allowed here.
        """
        if self._is_thought:
            self._thought_tokens_left -= 1
            self._is_thought = token_id != self._tokens.thought_end
            return
        if self._may_think and token_id == self._tokens.thought_begin:
            self._is_thought = True
        elif not self._matcher.consume_token(token_id):
            raise ValueError(f"token {token_id} is not allowed here; ask allowed() first")
        self._may_think = False


class Grammars:
    """Compiles grammars for one engine's tokenizer, whose trie is built at the first use."""

    def __init__(self, tokenizer_path: Path, manifest: Manifest, control: Sequence[int]) -> None:
        """Nothing is read yet.

        Args:
            tokenizer_path: `tokenizer.json`.
            manifest: of the engine.
            control: ids that no text may hold.
        """
        self._path = tokenizer_path
        self._manifest = manifest
        self._control = control

    def json_schema(self, schema: Mapping[str, Any], thought_tokens: int = 0) -> Constraint:
        """An answer that is one JSON value valid under `schema`, keys in the schema's order.

        Raises:
            ProtocolError: the schema is not one, or uses what cannot be enforced.
        """
        from llguidance import LLMatcher

        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), dict(JSON_SPACING))  # type: ignore[arg-type]
        return self._compile(grammar, thought_tokens)

    def regex(self, pattern: str, thought_tokens: int = 0) -> Constraint:
        """An answer that the regular expression matches as a whole.

        Raises:
            ProtocolError: the pattern does not parse.
        """
        from llguidance import LLMatcher

        return self._compile(LLMatcher.grammar_from_regex(pattern), thought_tokens)

    def choice(self, answers: Sequence[str], thought_tokens: int = 0) -> Constraint:
        """One of `answers`, letter by letter."""
        from llguidance import LLMatcher

        words = " | ".join(json.dumps(answer, ensure_ascii=False) for answer in answers)
        return self._compile(LLMatcher.grammar_from_lark(f"start: {words}"), thought_tokens)

    def _compile(self, grammar: str, thought_tokens: int) -> GrammarConstraint:
        from llguidance import LLMatcher

        matcher = LLMatcher(self._trie, grammar, log_level=0)
        if matcher.is_error():
            reason = " ".join(matcher.get_error().split())
            raise ProtocolError(f"the schema cannot be followed: {reason}; correct it")
        return GrammarConstraint(matcher, self._manifest, self._control, thought_tokens)

    @cached_property
    def _trie(self) -> "LLTokenizer":
        from llguidance import LLTokenizer

        return LLTokenizer(
            str(self._path),
            n_vocab=self._manifest.text.vocabulary,
            eos_token=list(self._manifest.tokens.stop),
        )
