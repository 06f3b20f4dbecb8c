"""Parity with transformers, and proof that every stage of the check can fail."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.planted_engine import altered, claiming, engine_that_claims

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.engine import export_engine
from edge_medgemma.export.verification.comparison import common_greedy
from edge_medgemma.export.verification.run import computed_precision, verify_engine
from edge_medgemma.export.verification.verdict import Verdict, judge, require_pass, thresholds_for
from edge_medgemma.runtime.backends.openvino.vision import has_bfloat16
from edge_medgemma.runtime.backends.select import Provider, Providers
from edge_medgemma.runtime.errors import ParityError
from edge_medgemma.runtime.generation import masks, prefix
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.manifest import Precision

FP32 = Precision("fp32", "fp32", "fp32", "fp32", 0)
PROMPTS = ["text", "1 image", "3 images", "long text"]
FEW_TOKENS = 4


def _verdict(directory: Path, checkpoint: Path) -> Verdict:
    with Engine.open(directory, threads=1) as engine:
        comparisons = verify_engine(engine, checkpoint, greedy_tokens=FEW_TOKENS)
        thresholds = thresholds_for(engine.manifest.precision)
    verdict = judge(comparisons, thresholds)
    print(verdict.reason)
    if not verdict.is_pass:
        with pytest.raises(ParityError, match=f"fp32 engine.*{verdict.stage}"):
            require_pass(verdict, thresholds)
    return verdict


@pytest.fixture(scope="module")
def untied_checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with a head of its own."""
    folder = altered(
        tiny_checkpoint,
        tmp_path_factory.mktemp("untied") / "tiny",
        {"config.json": lambda config: config.update(tie_word_embeddings=False)},
    )
    tensors = load_file(folder / "model.safetensors")
    shape = tensors["language_model.model.embed_tokens.weight"].shape
    head = np.random.default_rng(1).normal(0, 0.08, shape).astype(np.float32)
    tensors["language_model.lm_head.weight"] = head
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_engine_is_transformers(tiny_engine: Engine, tiny_checkpoint: Path) -> None:
    comparisons = verify_engine(tiny_engine, tiny_checkpoint)
    assert [one.prompt for one in comparisons] == PROMPTS
    assert comparisons[-1].tokens > 2 * tiny_engine.manifest.text.sliding_window
    thresholds = thresholds_for(tiny_engine.manifest.precision)
    assert judge(comparisons, thresholds) == Verdict(True, None, None, "")
    for one in comparisons:
        assert one.greedy is not None and one.greedy.equal == one.greedy.tokens == 64, one
        assert one.logits is not None and one.logits.kl_nats < 1e-9, one
        assert (
            (one.pixel_difference is None) == (one.image_cosine is None) == (one.prompt == "text")
        )


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
def test_a_quantised_engine_is_within_the_limits_of_its_precision(
    tiny_checkpoint: Path, tmp_path: Path, precision: str
) -> None:
    opened = open_checkpoint(str(tiny_checkpoint))
    export_engine(opened, tmp_path / "engine", precision=precision, block_size=32)
    with Engine.open(tmp_path / "engine", threads=1) as engine:
        comparisons = verify_engine(engine, tiny_checkpoint, greedy_tokens=16)
        thresholds = thresholds_for(engine.manifest.precision)
    assert thresholds.precision == precision
    assert judge(comparisons, thresholds).is_pass, comparisons
    exact = judge(comparisons, thresholds_for(FP32))
    assert precision == "fp16" or exact.stage == "logits", exact


def test_a_tower_that_openvino_computes_in_bfloat16_has_its_limits(
    tiny_engine_directory: Path, tiny_checkpoint: Path
) -> None:
    openvino = pytest.importorskip("openvino")
    if not has_bfloat16(openvino.Core()):
        pytest.skip("this processor does not multiply bfloat16")
    providers = Providers(vision=Provider.OPENVINO)
    with Engine.open(tiny_engine_directory, threads=1, providers=providers) as engine:
        assert thresholds_for(computed_precision(engine)).precision == "fp32"  # nothing ran yet
        comparisons = verify_engine(engine, tiny_checkpoint, greedy_tokens=FEW_TOKENS)
        thresholds = thresholds_for(computed_precision(engine))
    assert thresholds.precision == "bf16"
    assert judge(comparisons, thresholds).is_pass, comparisons
    assert judge(comparisons, thresholds_for(FP32)).stage == "image features"


def test_a_causal_image_mask_shows_in_the_logits(
    tiny_engine_directory: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def causal(queries, keys, window, hidden_chunks=None):
        text = masks.TokenMeta(
            keys.positions, np.full(len(keys), masks.NO_IMAGE), keys.chunks, keys.branches
        )
        return masks.additive_mask(queries, text, window, hidden_chunks)

    monkeypatch.setattr(prefix, "additive_mask", causal)
    verdict = _verdict(tiny_engine_directory, tiny_checkpoint)
    assert (verdict.stage, verdict.prompt) == ("logits", "1 image"), verdict


@pytest.mark.parametrize(
    ("found", "written", "words"),
    [
        ("{{- bos_token -}}", "{{- bos_token + 'Hi' -}}", r"position 1 .*<start_of_turn>"),
        ("model\\n'", "model'", "processor token 107"),
        ("item['text'] | trim", "'\\n' + (item['text'] | trim)", "position"),
    ],
    ids=["another opening", "no newline", "other separator"],
)
def test_another_chat_template_shows_in_the_ids(
    tiny_checkpoint: Path, tmp_path: Path, found: str, written: str, words: str
) -> None:
    checkpoint = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    template = (checkpoint / "chat_template.jinja").read_text()
    assert found in template
    (checkpoint / "chat_template.jinja").write_text(template.replace(found, written))
    engine = engine_that_claims(tiny_checkpoint, checkpoint, tmp_path / "engine")
    verdict = _verdict(engine, tiny_checkpoint)
    assert verdict.stage == "ids", verdict
    assert re.search(words, verdict.reason), verdict.reason


def test_swapped_images_show_in_the_features(
    tiny_engine_directory: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Engine.encode_images

    def swapped(self, pixels, on_progress=None):
        return encode(self, pixels[::-1], on_progress)

    monkeypatch.setattr(Engine, "encode_images", swapped)
    verdict = _verdict(tiny_engine_directory, tiny_checkpoint)
    assert (verdict.stage, verdict.prompt) == ("image features", "3 images"), verdict


@pytest.mark.parametrize(
    "setting", [{"resample": 3}, {"resample": 0}, {"image_mean": [0.4, 0.5, 0.5]}], ids=str
)
def test_another_preparation_shows_in_the_pixels(
    tiny_engine_directory: Path, tiny_checkpoint: Path, tmp_path: Path, setting: dict
) -> None:
    checkpoint = altered(
        tiny_checkpoint,
        tmp_path / "checkpoint",
        {"preprocessor_config.json": lambda settings: settings.update(setting)},
    )
    engine = claiming(shutil.copytree(tiny_engine_directory, tmp_path / "engine"), checkpoint)
    verdict = _verdict(engine, checkpoint)
    assert (verdict.stage, verdict.prompt) == ("pixels", "1 image"), verdict


def test_a_head_of_its_own_is_compared(untied_checkpoint: Path, tmp_path: Path) -> None:
    engine = engine_that_claims(untied_checkpoint, untied_checkpoint, tmp_path / "engine")
    assert _verdict(engine, untied_checkpoint).is_pass


def test_a_dropped_head_shows_in_the_logits(
    tiny_engine_directory: Path, untied_checkpoint: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(tiny_engine_directory, tmp_path / "engine")
    verdict = _verdict(claiming(directory, untied_checkpoint), untied_checkpoint)
    assert (verdict.stage, verdict.prompt) == ("logits", "text"), verdict


def test_a_wrong_rope_factor_shows_in_the_logits(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def unscaled(config: dict) -> None:
        config["text_config"]["rope_parameters"]["full_attention"]["factor"] = 1.0

    checkpoint = altered(tiny_checkpoint, tmp_path / "checkpoint", {"config.json": unscaled})
    engine = engine_that_claims(tiny_checkpoint, checkpoint, tmp_path / "engine")
    verdict = _verdict(engine, tiny_checkpoint)
    assert verdict.stage == "logits", verdict


@pytest.mark.parametrize(
    ("own", "reference", "expected"),
    [
        ([5, 6, 7], [5, 6, 7], (3, 3)),
        ([5, 6, 8], [5, 6, 7], (2, 3)),
        ([5], [5, 1, 9], (2, 2)),
        ([5], [5, 106, 9], (2, 2)),
        ([5, 6, 7], [5, 1, 9], (1, 2)),
        ([5], [5, 6, 7], (1, 3)),
        ([], [1, 5], (1, 1)),
    ],
)
def test_greedy_continuations_are_compared_up_to_their_end(own, reference, expected) -> None:
    assert common_greedy(own, reference, (1, 106)) == expected
