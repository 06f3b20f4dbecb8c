"""llama.cpp through the C interface that llama-cpp-python ships: libllama and libmtmd."""

import ctypes
import os
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import llama_cpp as llama
import numpy as np
from comparisons.gguf_files import write_vision
from comparisons.llamacpp_files import language_model, partial
from comparisons.worker import Peer, main
from llama_cpp import mtmd_cpp as mtmd

CONTEXT_UNIT = 256
"""llama.cpp rounds its caches up to it."""
BATCH_TOKENS = 2048
PASS_TOKENS = 512
"""llama.cpp's own defaults of n_batch and n_ubatch."""

SCAN, QUESTION = 0, 1
"""Sequences: the prefix stays in one, questions are asked in a copy that shares its cells."""

KEEP_QUIET = llama.llama_log_callback(lambda level, text, data: None)


class LlamaCpp(Peer):
    """One llama.cpp context and one mtmd context, as llama-mtmd-cli holds them."""

    def about(self) -> str:
        """Version and options."""
        return (
            f"llama.cpp of llama-cpp-python {version('llama-cpp-python')}, {self.variant}, "
            "projector f16, mmap, flash attention, f16 window cache, n_ubatch 512"
        )

    def files(self) -> Iterable[Path]:
        """Both GGUF files."""
        return (self._file(self.variant), self._projector())

    def open(self) -> None:
        """Load both files, converting the checkpoint first where that was not done yet."""
        self._set_quiet()
        self.convert()
        llama.llama_backend_init()
        settings = llama.llama_model_default_params()
        self._model = llama.llama_model_load_from_file(
            str(self._file(self.variant)).encode(), settings
        )
        if not self._model:
            raise RuntimeError("llama.cpp refused the language model")
        self._context = llama.llama_init_from_model(self._model, self._context_settings())
        self._memory = llama.llama_get_memory(self._context)
        self._vocabulary = llama.llama_n_vocab(llama.llama_model_get_vocab(self._model))
        self._batch = llama.llama_batch_init(BATCH_TOKENS, 0, 1)
        self._position = 0
        self._last = 0
        self._pictures: list[tuple[object, object, np.ndarray]] = []
        tower = mtmd.mtmd_context_params_default()
        tower.use_gpu = False
        tower.print_timings = False
        tower.n_threads = self.job.threads
        tower.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
        tower.warmup = False
        self._tower = mtmd.mtmd_init_from_file(str(self._projector()).encode(), self._model, tower)
        if not self._tower:
            raise RuntimeError("llama.cpp refused the projector")

    def convert(self) -> None:
        """Make the GGUF files that are missing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoint = Path(self.job.checkpoint)
        if not self._projector().exists():
            write_vision(checkpoint, partial(self._projector()))
            partial(self._projector()).rename(self._projector())
        language_model(checkpoint, self.folder, self.variant, self.job.threads)

    def encode(self, images: Sequence[int]) -> None:
        """One slice at a time: mtmd does no better with several."""
        for _, chunks, _ in self._pictures:
            mtmd.mtmd_input_chunks_free(chunks)
        self._pictures = []
        for image in images:
            chunk, chunks = self._image_chunk(self.pixels[image])
            if mtmd.mtmd_encode_chunk(self._tower, chunk):
                raise RuntimeError("mtmd could not encode a slice")
            count = mtmd.mtmd_input_chunk_get_n_tokens(chunk) * llama.llama_model_n_embd(
                self._model
            )
            features = mtmd.mtmd_get_output_embd(self._tower)
            self._pictures.append((chunk, chunks, np.ctypeslib.as_array(features, (count,)).copy()))

    def read(self) -> None:
        """Text in causal passes, each slice in one pass that sees itself both ways."""
        self.reset()
        for segment in self.job.prefix:
            if segment.image is None:
                self._read_text(segment.ids, SCAN, wants_logits=False)
            else:
                self._read_image(segment.image)

    def ask(self, questions: Sequence[Sequence[int]]) -> np.ndarray:
        """One after the other in a sequence that shares the prefix."""
        rows = []
        for question in questions:
            rows.append(self._in_copy(question))
            self._leave_copy()
        return np.stack(rows)

    def generate(self, ids: Sequence[int], tokens: int) -> list[int]:
        """Greedy in a sequence that shares the prefix."""
        found = [int(self._in_copy(ids).argmax())]
        while len(found) < tokens:
            found.append(int(self._read_text(found[-1:], QUESTION).argmax()))
        self._leave_copy()
        return found

    def reset(self) -> None:
        """Empty the caches."""
        llama.llama_memory_clear(self._memory, True)
        self._position = 0

    def fill(self, ids: Sequence[int]) -> None:
        """Text behind whatever there is."""
        for start in range(0, len(ids), BATCH_TOKENS):
            self._last = int(self._read_text(ids[start : start + BATCH_TOKENS], SCAN).argmax())

    def decode(self, tokens: int) -> None:
        """Greedy, one by one."""
        for _ in range(tokens):
            self.fill([self._last])

    def _in_copy(self, ids: Sequence[int]) -> np.ndarray:
        self._kept = self._position
        llama.llama_memory_seq_cp(self._memory, SCAN, QUESTION, -1, -1)
        return self._read_text(ids, QUESTION)

    def _leave_copy(self) -> None:
        llama.llama_memory_seq_rm(self._memory, QUESTION, -1, -1)
        self._position = self._kept

    def _read_text(
        self, ids: Sequence[int], sequence: int, *, wants_logits: bool = True
    ) -> np.ndarray:
        batch = self._batch
        batch.n_tokens = len(ids)
        for row, token in enumerate(ids):
            batch.token[row] = token
            batch.pos[row] = self._position + row
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = sequence
            batch.logits[row] = wants_logits and row == len(ids) - 1
        if llama.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode failed at position {self._position}")
        self._position += len(ids)
        if not wants_logits:
            return np.zeros(0, np.float32)
        logits = llama.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(logits, (self._vocabulary,)).copy()

    def _read_image(self, image: int) -> None:
        chunk, _, features = self._pictures[image]
        position = llama.llama_pos(self._position)
        pointer = features.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        after = llama.llama_pos()
        arguments = (chunk, pointer, position, SCAN, BATCH_TOKENS, ctypes.byref(after))
        no_callback = mtmd.mtmd_helper_post_decode_callback()
        if mtmd.mtmd_helper_decode_image_chunk(
            self._tower, self._context, *arguments, no_callback, None
        ):
            raise RuntimeError("mtmd could not read a slice")
        self._position = after.value

    def _image_chunk(self, pixels: np.ndarray) -> tuple[object, object]:
        """The slice inside the chunks that mtmd makes of a lone picture, and the chunks' owner."""
        rows, columns, _ = pixels.shape
        data = (ctypes.c_uint8 * pixels.size).from_buffer_copy(np.ascontiguousarray(pixels))
        bitmap = mtmd.mtmd_bitmap_init(columns, rows, data)
        marker = mtmd.mtmd_default_marker()
        text = mtmd.mtmd_input_text(marker, len(marker), False, True)
        chunks = mtmd.mtmd_input_chunks_init()
        bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
        failed = mtmd.mtmd_tokenize(self._tower, chunks, ctypes.byref(text), bitmaps, 1)
        mtmd.mtmd_bitmap_free(bitmap)
        if failed:
            raise RuntimeError("mtmd refused a slice")
        for index in range(mtmd.mtmd_input_chunks_size(chunks)):
            chunk = mtmd.mtmd_input_chunks_get(chunks, index)
            if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE:
                return chunk, chunks
        raise RuntimeError("mtmd made no image of a slice")

    def _context_settings(self) -> llama.llama_context_params:
        settings = llama.llama_context_default_params()
        settings.n_ctx = -(-self.context_tokens // CONTEXT_UNIT) * CONTEXT_UNIT
        settings.n_batch = BATCH_TOKENS
        settings.n_ubatch = PASS_TOKENS
        settings.n_seq_max = 2
        settings.kv_unified = True
        settings.swa_full = False
        settings.n_threads = self.job.threads
        settings.n_threads_batch = self.job.threads
        settings.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
        return settings

    def _file(self, variant: str) -> Path:
        return self.folder / f"model-{variant}.gguf"

    def _projector(self) -> Path:
        return self.folder / "mmproj-f16.gguf"

    @staticmethod
    def _set_quiet() -> None:
        if "COMPARISONS_VERBOSE" not in os.environ:
            llama.llama_log_set(KEEP_QUIET, None)
            mtmd.mtmd_log_set(KEEP_QUIET, None)
            mtmd.mtmd_helper_log_set(KEEP_QUIET, None)


if __name__ == "__main__":
    main(LlamaCpp)
