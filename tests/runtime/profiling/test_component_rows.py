"""A prefix filled without computing is, to a pass, the prefix that was computed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_medgemma.runtime.backends.base import Caches, DecoderModel
from edge_medgemma.runtime.backends.select import Provider, open_decoder
from edge_medgemma.runtime.generation.embedding import Embedding
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.prompt import Chunk
from edge_medgemma.runtime.generation.sampling import Sampling
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
        self.caches = self.decoder.new_caches()
        return self.caches

    def decode_kv_caches(self, caches, rows, room):
        return self.decoder.decode_kv_caches(caches, rows, room)

    def run(
        self,
        caches,
        embeddings,
        position_ids,
        mask_global,
        mask_local,
        logit_rows,
        *,
        is_decode=False,
    ):
        capacity = caches.capacity("global"), caches.capacity("local")
        self.passes.append(
            (position_ids.tolist(), mask_global.tolist(), mask_local.tolist(), capacity)
        )
        return self.decoder.run(
            caches,
            embeddings,
            position_ids,
            mask_global,
            mask_local,
            logit_rows,
            is_decode=is_decode,
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


def test_the_rows_are_filled_with_values_of_the_usual_size(parts) -> None:
    decoder, embedding, manifest = parts
    watched = Watched(decoder)
    prefix = deep_prefix(watched, embedding, manifest, DEPTH)
    step = next(prefix.generate((5, 6), ENDLESS, 1))
    assert np.isfinite(step.logprob)
    for lane, used in (("global", DEPTH), ("local", manifest.text.sliding_window)):
        for rows in watched.caches.view(lane, used):
            assert rows.std() == pytest.approx(1.0, abs=0.1)


def test_stop_ids_do_not_end_a_measurement(parts) -> None:
    decoder, embedding, manifest = parts
    every_id = tuple(range(manifest.text.vocabulary))
    stopping = replace(manifest, tokens=replace(manifest.tokens, stop=every_id))
    assert not list(Prefix(decoder, embedding, stopping).generate((5,), Sampling(), 40))
    steps = list(Prefix(decoder, embedding, stopping).generate((5,), ENDLESS, 40))
    assert len(steps) == 40


def test_rows_are_named_as_llama_bench_names_them(parts) -> None:
    manifest = parts[2]
    room = manifest.text.max_positions
    depths = depths_for(manifest, with_long=False)
    assert depths[0] == 0 and depths[-1] + PROMPT_TOKENS + GENERATED_TOKENS <= room
    assert decoder_row_names((0, 8192)) == ("pp512", "tg128", "pp512@d8192", "tg128@d8192")
