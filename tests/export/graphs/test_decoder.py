from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.engine import export_engine
from edge_medgemma.export.graphs.decoder import inverse_frequencies
from edge_medgemma.runtime.manifest import load_manifest

TOLERANCE = 1e-4
"""Float32 round-off over 7 layers; logits are about 3, and a wrong mask moves them by more than 1."""

IMAGE = [760, *[762] * 16, 761]


def token_ids(layout, seed=0):
    """Ids of a layout such as [10, 'image', 5]: counts of random text tokens, and images."""
    rng = np.random.default_rng(seed)
    parts = [IMAGE if part == "image" else list(rng.integers(110, 700, part)) for part in layout]
    return np.array([2, *chain.from_iterable(parts)], np.int64)


@pytest.fixture
def case(engine, reference, decoder_session):
    """Reference logits [T, V] and a function giving the engine's logits, chunk by chunk."""

    def build(layout):
        manifest = load_manifest(engine)
        ids = token_ids(layout)
        types = (ids == manifest.tokens.image).astype(np.int64)
        images = layout.count("image")
        pixels = np.random.default_rng(1).standard_normal((images, 3, 112, 112), np.float32)
        inputs = {"input_ids": torch.tensor(ids)[None], "token_type_ids": torch.tensor(types)[None]}
        embeddings = np.fromfile(engine / "embedding.data", np.float32).reshape(768, 96)[ids]
        embeddings *= np.float32(manifest.text.embed_scale)
        with torch.no_grad():
            if images:
                inputs["pixel_values"] = torch.tensor(pixels)
                features = reference.model.get_image_features(torch.tensor(pixels)).pooler_output
                embeddings[types == 1] = features.reshape(-1, 96).numpy()
            expected = reference(**inputs).logits[0].numpy()

        def run(chunks, capacity=150):
            session = decoder_session.DecoderSession(engine, manifest.text, capacity)
            starts = np.cumsum([0, *chunks])
            assert starts[-1] == len(ids)
            return np.concatenate(
                [
                    session.run(embeddings[a:b], types[a:b], list(range(b - a)))
                    for a, b in pairwise(starts)
                ]
            )

        return expected, run

    return build


def assert_close(found, expected):
    difference = np.abs(found - expected)
    assert difference.max() < TOLERANCE, (
        f"max {difference.max():.2e}, mean {difference.mean():.2e}, "
        f"reference mean {np.abs(expected).mean():.2f}"
    )


def test_text_longer_than_the_window(case):
    expected, run = case([59])
    assert_close(run([60]), expected)


def test_images_see_themselves_both_ways(case):
    expected, run = case([9, "image", 5, "image", 46])
    assert_close(run([len(expected)]), expected)


def test_chunks_with_a_cache_equal_one_pass(case):
    expected, run = case([9, "image", 5, "image", 28])
    assert_close(run([10, 18, 5, 18, 24, 1, 1, 1, 1]), expected)


@pytest.mark.parametrize("size", [1, 5, 299])
def test_chunk_sizes_within_a_larger_cache(case, size):
    expected, run = case([299])
    assert_close(run([300 - size, size], capacity=512), expected)


def test_a_causal_mask_on_images_is_far_off(case, decoder_session, monkeypatch):
    """The comparison can fail: without the image blocks the logits differ visibly."""
    expected, run = case([9, "image", 5])
    with_blocks = decoder_session.masks_for
    monkeypatch.setattr(
        decoder_session, "masks_for", lambda types, window: with_blocks(0 * types, window)
    )
    assert np.abs(run([len(expected)]) - expected).max() > 0.1


@pytest.mark.parametrize(("weights", "limit"), [("int8", 0.05), ("int4", 0.5)])
def test_quantised_decoders_stay_close(
    engine, tiny_checkpoint, decoder_session, tmp_path, weights, limit
):
    text = load_manifest(engine).text
    quantised = tmp_path / weights
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    export_engine(checkpoint, quantised, precision=weights, block_size=32)
    embeddings = np.random.default_rng(0).standard_normal((40, 96), np.float32)

    def logits(folder):
        session = decoder_session.DecoderSession(folder, text, 64)
        return session.run(embeddings, np.zeros(40, np.int64), list(range(40)))

    expected = logits(engine)
    relative = np.abs(logits(quantised) - expected) / np.abs(expected).mean()
    assert 1e-5 < relative.mean() < limit, f"max {relative.max():.2e}, mean {relative.mean():.2e}"


def test_only_chosen_rows_are_projected(engine, decoder_session):
    text = load_manifest(engine).text
    embeddings = np.random.default_rng(0).standard_normal((8, 96), np.float32)
    types = np.zeros(8, np.int64)

    def logits(rows):
        return decoder_session.DecoderSession(engine, text, 8).run(embeddings, types, rows)

    everything = logits(list(range(8)))
    np.testing.assert_allclose(logits([7, 2]), everything[[7, 2]], atol=1e-5)
    assert logits([]).shape == (0, 768)


def test_inverse_frequencies_equal_transformers(reference):
    rotary = reference.model.language_model.rotary_emb
    for kind, theta, factor in (("full", 1e6, 8.0), ("sliding", 1e4, 1.0)):
        expected = getattr(rotary, f"{kind}_attention_inv_freq").numpy()
        np.testing.assert_allclose(
            inverse_frequencies(32, theta, factor).ravel(), expected, rtol=2e-7
        )


def test_graph_says_no_more_than_the_contract(engine: Path):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(engine / "decoder.onnx"))
    named = {value.name: value.shape for value in session.get_inputs()}
    caches = {f"past_{kind}.{layer}" for kind in ("key", "value") for layer in range(7)}
    assert set(named) - caches == {
        "embeddings",
        "position_ids",
        "mask_global",
        "mask_local",
        "seqlen_global",
        "total_global",
        "seqlen_local",
        "total_local",
        "logit_rows",
    }
    assert named["past_key.5"] == [1, 2, "G", 32]
    assert named["past_value.6"] == [1, 2, "L", 32]
