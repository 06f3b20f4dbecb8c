"""Prefix of a scan in the KV cache: prefilled once, asked many times."""

import time
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.base import AttentionKind, DecoderModel
from edge_medgemma.runtime.generation.embedding import Embedding
from edge_medgemma.runtime.generation.grammar import Constraint
from edge_medgemma.runtime.generation.kv_index import LayerGroupCache, PrefixSnapshot
from edge_medgemma.runtime.generation.masks import (
    NO_BRANCH,
    NO_IMAGE,
    TokenMeta,
    additive_mask,
)
from edge_medgemma.runtime.generation.outputs import FinishReason, Step
from edge_medgemma.runtime.generation.positions import answer_limit, require_positions
from edge_medgemma.runtime.generation.prefill_chunks import QuestionTree, passes
from edge_medgemma.runtime.generation.prompt import Chunk
from edge_medgemma.runtime.generation.sampling import Sampling, choose_token
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.memory.cache_geometry import (
    GLOBAL_GROWTH_SLOTS,
    LOCAL_SLACK_SLOTS,
    MAX_PREFILL_TOKENS,
)

DECODE_SLACK_ROWS = 128
"""Spare rows of local caches in decode, whose rows are a quarter as large as in prefill."""


class Prefix:
    """A growing sequence of chunks with its caches; questions leave it as it was."""

    def __init__(
        self,
        decoder: DecoderModel,
        embedding: Embedding,
        manifest: Manifest,
        expected_tokens: int = 0,
    ) -> None:
        """Start empty; `expected_tokens` reserves the global caches at once."""
        self._decoder = decoder
        self._embedding = embedding
        self._manifest = manifest
        self._prefill_caches = self._caches = decoder.new_caches()
        self._global = LayerGroupCache(None)
        self._local = LayerGroupCache(manifest.text.sliding_window)
        self._images = 0
        self._chunks = 0
        self._expected_tokens = expected_tokens
        self._asking = False
        self._is_decoding = False
        self._saved: list[NDArray[np.floating]] | None = None

    @property
    def length(self) -> int:
        """Tokens prefilled."""
        return self._global.used

    def compact(self) -> None:
        """Forget what no later token can see.

        After the last slice: questions then start from the same rows, bit for bit, whether the
        slices were read or restored.
        """
        self._compact(self.length)

    def snapshot(self) -> PrefixSnapshot:
        """Snapshot for `restore`; its arrays are views of the caches, valid until the next call."""
        return PrefixSnapshot(
            self._global.rows,
            self._local.rows,
            self._images,
            self._chunks,
            self._caches.view("global", self._global.used),
            self._caches.view("local", self._local.used),
        )

    def restore(self, snapshot: PrefixSnapshot) -> None:
        """Become the prefix that the snapshot was taken of; this one must be new.

        Raises:
            ValueError: the arrays do not fit the rows or the engine; throw this prefix away.
        """
        global_rows, local_rows = snapshot.global_rows, snapshot.local_rows
        if not len(global_rows) or not len(local_rows):
            raise ValueError("a prefix without rows")
        self._reserve_global(len(global_rows))
        self._reserve_local(len(local_rows))
        self._caches.restore("global", snapshot.checked_global_arrays())
        self._caches.restore("local", snapshot.checked_local_arrays())
        self._global.append(global_rows)
        self._local.append(local_rows)
        self._images, self._chunks = snapshot.images, snapshot.chunks

    def extend(
        self,
        chunk: Chunk,
        features: NDArray[np.float32] | None = None,
        *,
        wants_logits: bool = True,
    ) -> NDArray[np.float32]:
        """Prefill one chunk.

        Args:
            chunk: token ids, image tokens included
            features: [images, tokens_per_image, hidden] for the chunk's images
            wants_logits: of a chunk without images; nobody asks for what follows a slice

        Returns:
            Logits after its last token, [vocabulary], where they are wanted and the chunk has no
            image; else empty.

        Raises:
            ValueError: the features do not fit the chunk.
            EngineError: more tokens than the engine has positions for.
        """
        require_positions(self._manifest.text, self.length + len(chunk.ids))
        ids = np.asarray(chunk.ids, np.int64)
        embeddings = self._embedding.rows(chunk.ids)
        images = np.full(len(ids), NO_IMAGE, np.int64)
        where = np.flatnonzero(ids == self._manifest.tokens.image)
        count = 0 if features is None else features.shape[0] * features.shape[1]
        if len(where) != count:
            raise ValueError(f"the chunk has {len(where)} image tokens, the features {count}")
        if features is not None and count:
            embeddings[where] = features.reshape(count, -1)
            images[where] = self._images + np.repeat(np.arange(len(features)), features.shape[1])
        rows = TokenMeta(
            self.length + np.arange(len(ids)),
            images,
            np.full(len(ids), self._chunks),
            np.full(len(ids), NO_BRANCH),
        )
        logits = np.zeros(0, np.float32)
        for part in passes(images):
            is_asked = wants_logits and not chunk.images and part.stop == len(ids)
            logit_rows = np.array([part.stop - part.start - 1] if is_asked else [], np.int64)
            logits = self._run(rows[part], embeddings[part], logit_rows)
        self._images += chunk.images
        self._chunks += 1
        return logits.reshape(-1)

    def score(
        self,
        questions: Sequence[Sequence[int]],
        hidden_chunks: Sequence[Collection[int]] | None = None,
    ) -> NDArray[np.float32]:
        """Logits of the token after each question, all questions in as few passes as fit.

        Each question continues the prefix as if it were alone; the prefix stays as it was. What all
        questions of a pass begin with is read once.

        Args:
            questions: token ids of each question
            hidden_chunks: for each question the prefix chunks that it may not see, numbered in
                the order of `extend`

        Returns:
            [questions, vocabulary] float32

        Raises:
            EngineError: more tokens than the engine has positions for.
        """
        require_positions(self._manifest.text, self.length + max(map(len, questions), default=0))
        hidden = hidden_chunks or [()] * len(questions)
        logits = []
        first = 0
        while first < len(questions):
            tree = QuestionTree(questions[first : first + 1], hidden[first : first + 1])
            for last in range(first + 2, len(questions) + 1):
                larger = QuestionTree(questions[first:last], hidden[first:last])
                if len(larger.ids) > MAX_PREFILL_TOKENS:
                    break
                tree = larger
            with self._question(len(tree.ids)):
                embeddings = self._embedding.rows(tree.ids)
                rows = tree.rows(self.length)
                logits.append(self._run(rows, embeddings, tree.last_rows, tree.hidden_chunks))
            first += len(tree.last_rows)
        return np.concatenate(logits)

    def generate(
        self,
        ids: Sequence[int],
        sampling: Sampling,
        max_tokens: int,
        constraint: Constraint | None = None,
    ) -> Generator[Step, None, FinishReason]:
        """Continue the prefix with `ids` and then with the tokens of the model.

        Ends at any stop id of the manifest (not yielded), unless they are ignored, after
        `max_tokens` or at the engine's last position. The prefix is rewound when the generator ends
        or is closed. Tokens that `constraint` forces are not asked for: they are read together with
        the next one that is.

        Returns:
            Why it ended.

        Raises:
            EngineError: more tokens in `ids` than the engine has positions for.
        """
        read = self.length + len(ids)
        max_tokens, spent = answer_limit(self._manifest.text, read, max_tokens)
        start = time.perf_counter()
        generator = np.random.default_rng(sampling.seed)
        unread = list(ids)
        count = 0
        with self._question(len(ids) + max_tokens), ExitStack() as answer:
            while True:
                chosen = [(token, 0.0) for token in constraint.forced()] if constraint else []
                if not chosen:
                    if count == max_tokens:
                        return spent
                    allowed = constraint.allowed() if constraint else None
                    logits = self._read_text(unread)
                    unread = []
                    if not self._is_decoding:
                        answer.enter_context(self._decoding(max_tokens))
                    chosen = [choose_token(logits, sampling, generator, allowed)]
                for token, logprob in chosen:
                    if token in self._manifest.tokens.stop and not sampling.ignore_stop:
                        return FinishReason.STOP
                    if count == max_tokens:
                        return spent
                    if constraint:
                        constraint.accept(token)
                    yield Step(token, logprob, time.perf_counter() - start)
                    count += 1
                    unread.append(token)

    def _read_text(self, ids: Sequence[int]) -> NDArray[np.float32]:
        embeddings = self._embedding.rows(ids)
        images = np.full(len(ids), NO_IMAGE, np.int64)
        rows = TokenMeta(self.length + np.arange(len(ids)), images, images, images)
        logits = np.zeros((0, 0), np.float32)
        for part in passes(images):
            last = [part.stop - part.start - 1] if part.stop == len(ids) else []
            logits = self._run(rows[part], embeddings[part], np.array(last, np.int64))
        last_row: NDArray[np.float32] = logits[0]
        return last_row

    @contextmanager
    def _question(self, tokens: int) -> Iterator[None]:
        """Tokens read inside are forgotten at the end."""
        if self._asking:
            raise RuntimeError("a question is still open; close its generator first")
        if self._local.used + tokens > self._caches.capacity("local"):
            self._compact(self.length)
        self._asking = True
        used, local_rows = self._global.used, self._local.rows
        try:
            yield
        finally:
            self._global.truncate(used)
            self._local.rows = local_rows
            if self._saved is not None:
                self._caches.restore("local", self._saved)
                self._saved = None
            self._asking = False

    @contextmanager
    def _decoding(self, tokens: int) -> Iterator[None]:
        """Tokens read inside go to caches that are fast for single tokens, where there are any."""
        unseen = self._local.num_evictable(self.length)
        rows: dict[AttentionKind, slice] = {
            "global": slice(0, self._global.used),
            "local": slice(unseen, self._local.used),
        }
        spare_rows: dict[AttentionKind, int] = {
            "global": tokens,
            "local": min(tokens, DECODE_SLACK_ROWS),
        }
        caches = self._decoder.decode_kv_caches(self._caches, rows, spare_rows)
        read = self._global.rows, self._local.rows
        if caches is not None:
            self._caches = caches
            self._local.drop(unseen)
        self._is_decoding = True
        try:
            yield
        finally:
            self._caches = self._prefill_caches
            self._global.rows, self._local.rows = read
            self._is_decoding = False

    def _run(
        self,
        rows: TokenMeta,
        embeddings: NDArray[np.float32],
        logit_rows: NDArray[np.int64],
        hidden_chunks: dict[int, Collection[int]] | None = None,
    ) -> NDArray[np.float32]:
        self._make_room(len(rows), int(rows.positions.min()))
        used = self._global.used, self._local.used
        self._global.append(rows)
        self._local.append(rows)
        masks = [
            additive_mask(rows, group.rows, group.window, hidden_chunks)
            for group in (self._global, self._local)
        ]
        try:
            return self._decoder.run(
                self._caches,
                embeddings,
                rows.positions,
                masks[0],
                masks[1],
                logit_rows,
                is_decode=self._is_decoding,
            )
        except BaseException:
            self._global.truncate(used[0])
            self._local.truncate(used[1])
            raise

    def _make_room(self, tokens: int, position: int) -> None:
        self._reserve_global(tokens)
        if self._local.used + tokens > self._caches.capacity("local"):
            self._compact(position)
        self._reserve_local(tokens)

    def _reserve_global(self, tokens: int) -> None:
        wanted = self._global.used + tokens
        if wanted > self._caches.capacity("global"):
            rows = max(wanted, self._expected_tokens) + GLOBAL_GROWTH_SLOTS
            self._caches.reserve("global", rows, self._global.used)

    def _reserve_local(self, tokens: int) -> None:
        wanted = self._local.used + tokens
        if wanted > self._caches.capacity("local"):
            window = self._manifest.text.sliding_window
            self._caches.reserve("local", max(wanted, window + LOCAL_SLACK_SLOTS), self._local.used)

    def _compact(self, position: int) -> None:
        count = self._local.num_evictable(position)
        if count:
            is_own = self._caches is not self._prefill_caches
            if self._asking and not is_own and self._saved is None:
                view = self._caches.view("local", self._local.used)
                self._saved = [array.copy() for array in view]
            self._caches.drop("local", count, self._local.used)
            self._local.drop(count)
