import numpy as np
import pytest
from tokenizers import Tokenizer

from edge_medgemma.export.checkpoint.synthetic import SHAPES, synthetic_checkpoint
from edge_medgemma.export.checkpoint.tensor_names import expected_shapes
from edge_medgemma.export.engine import export_engine
from edge_medgemma.runtime.errors import CheckpointError
from edge_medgemma.runtime.manifest import load_manifest


def test_4b_has_as_many_parameters_as_published():
    text, vision, _ = SHAPES["4b"]
    sizes = [int(np.prod(shape)) for shape in expected_shapes(text, vision).values()]
    assert sum(sizes) == 4_300_079_472


def test_any_part_of_a_tensor_is_the_same_as_in_the_whole():
    tensor = synthetic_checkpoint("4b").tensors["text.layers.3.self_attn.k_proj.weight"]
    whole = tensor.read()
    assert whole.shape == (1024, 2560)
    for rows, columns in (((0, 1024), (128, 256)), ((100, 900), (5, 1300)), ((7, 8), (0, 2560))):
        part = tensor.read(slice(*rows), slice(*columns))
        np.testing.assert_array_equal(part, whole[slice(*rows), slice(*columns)])
    assert whole.std() == pytest.approx(2560**-0.5, rel=0.02)


def test_weights_are_as_normal_as_256_numbers_can_be():
    weights = synthetic_checkpoint("4b").tensors["text.layers.3.self_attn.k_proj.weight"].read()
    deviations = np.abs(weights - weights.mean()) / weights.std()
    assert weights.mean() == pytest.approx(0, abs=1e-4)
    for limit, share in ((0.5, 0.383), (1, 0.683), (2, 0.954)):
        assert np.mean(deviations < limit) == pytest.approx(share, abs=0.01)
    assert 2.8 < deviations.max() < 3


def test_tiles_below_the_first_differ():
    rows = synthetic_checkpoint("4b").tensors["text.embed_tokens.weight"].read(slice(507, 517))
    assert len({row.tobytes() for row in rows}) == 10


def test_nothing_is_left_at_a_neutral_value():
    for name, tensor in synthetic_checkpoint("tiny").tensors.items():
        assert tensor.read().std() > 0, name


def test_seeds_differ_and_repeat():
    name = "text.norm.weight"
    one, again, two = (synthetic_checkpoint("tiny", seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.tensors[name].read(), again.tensors[name].read())
    assert not np.array_equal(one.tensors[name].read(), two.tensors[name].read())
    assert one.fingerprint() == again.fingerprint() != two.fingerprint()


def test_unknown_size_names_the_published_ones():
    with pytest.raises(CheckpointError, match="published as 4b and 27b"):
        synthetic_checkpoint("2b")


def test_synthetic_engines_say_what_they_are(tmp_path):
    export_engine(synthetic_checkpoint("tiny"), tmp_path / "e", precision="int4", block_size=32)
    manifest = load_manifest(tmp_path / "e")
    assert manifest.source.kind == "synthetic"
    assert "random weights" in (tmp_path / "e" / "NOTICE").read_text()


@pytest.mark.parametrize("size", ["4b", "tiny"])
def test_every_text_encodes_and_decodes_back(size):
    checkpoint = synthetic_checkpoint(size)
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer_json.decode())
    tokens = checkpoint.tokens
    for content, index in (
        ("<pad>", tokens.pad),
        ("<bos>", tokens.bos),
        ("<start_of_turn>", 105),
        ("<end_of_turn>", 106),
        ("<start_of_image>", tokens.image_begin),
        ("<end_of_image>", tokens.image_end),
        ("<image_soft_token>", tokens.image),
        ("<unused94>", tokens.thought_begin),
        ("<unused95>", tokens.thought_end),
    ):
        assert tokenizer.token_to_id(content) == index
    for text in ("SLICE 12\n\nYes. no", "Hämorrhagie? 脳出血 \x00 🧠", " leading and  double "):
        encoded = tokenizer.encode(text, add_special_tokens=False)
        assert max(encoded.ids) < checkpoint.text.vocabulary
        assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == text
    ids = tokenizer.encode("yes no Yes No", add_special_tokens=False).ids
    assert len(ids) == 4
