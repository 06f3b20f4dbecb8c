"""A prefix filled without computing is, to a pass, the prefix that was computed."""

from pathlib import Path

import numpy as np
import pytest

from edge_medgemma.runtime.backends.model import Caches, DecoderModel
from edge_medgemma.runtime.backends.providers import Provider, open_decoder
from edge_medgemma.runtime.generation.embedding import Embedding
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.prompt import Chunk
from edge_medgemma.runtime.manifest import load_manifest
from edge_medgemma.runtime.profiling.component_rows import (
    ENDLESS,
    GENERATED_TOKENS,
    PROMPT_TOKENS,
    decoder_row_names,
    deep_prefix,
    depths_for,
)

DEPTH = 2200
"""Beyond window and slack of the tiny engine, so that its local caches are compacted."""


class Watched:
    """A decoder that notes what each pass is given."""

    def __init__(self, decoder: DecoderModel) -> None:
        self.decoder = decoder
        self.passes: list[tuple[object, ...]] = []

    def new_caches(self) -> Caches:
        return self.decoder.new_caches()

    def run(self, caches, embeddings, position_ids, mask_global, mask_local, logit_rows):
        capacity = caches.capacity("global"), caches.capacity("local")
        self.passes.append(
            (position_ids.tolist(), mask_global.tolist(), mask_local.tolist(), capacity)
        )
        return self.decoder.run(
            caches, embeddings, position_ids, mask_global, mask_local, logit_rows
        )


@pytest.fixture(scope="module")
def parts(tiny_engine_directory: Path):
    manifest = load_manifest(tiny_engine_directory)
    decoder = open_decoder(tiny_engine_directory, manifest, Provider.AUTO, 2)
    return decoder, Embedding(tiny_engine_directory, manifest), manifest


def test_a_filled_prefix_gives_the_passes_of_a_computed_one(parts) -> None:
    decoder, embedding, manifest = parts
    filled = Watched(decoder)
    prefix = deep_prefix(filled, embedding, manifest, DEPTH)
    assert not filled.passes, "filling must compute nothing"
    list(prefix.generate((5, 6), ENDLESS, 3))

    computed = Watched(decoder)
    prefix = Prefix(computed, embedding, manifest, DEPTH + PROMPT_TOKENS + GENERATED_TOKENS)
    prefix.extend(Chunk((7,) * DEPTH, 0))
    computed.passes.clear()
    list(prefix.generate((5, 6), ENDLESS, 3))
    assert filled.passes == computed.passes


def test_the_filled_rows_are_looked_at(parts) -> None:
    decoder, embedding, manifest = parts
    first = next(deep_prefix(decoder, embedding, manifest, 64).generate((5, 6), ENDLESS, 1))
    nothing = next(Prefix(decoder, embedding, manifest).generate((5, 6), ENDLESS, 1))
    assert np.isfinite(first.logprob)
    assert first.logprob != nothing.logprob


def test_stop_ids_do_not_end_a_measurement(parts) -> None:
    decoder, embedding, manifest = parts
    steps = list(deep_prefix(decoder, embedding, manifest, 0).generate((5,), ENDLESS, 40))
    assert len(steps) == 40


def test_rows_are_named_as_llama_bench_names_them(parts) -> None:
    manifest = parts[2]
    room = manifest.text.max_positions
    depths = depths_for(manifest, with_long=False)
    assert depths[0] == 0 and depths[-1] + PROMPT_TOKENS + GENERATED_TOKENS <= room
    assert decoder_row_names((0, 8192)) == ("pp512", "tg128", "pp512@d8192", "tg128@d8192")
