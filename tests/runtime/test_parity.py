from dataclasses import replace
from pathlib import Path

import pytest
from support.fake_engine import fake_manifest

from edge_medgemma.runtime.parity import PARITY_NAME, UNVERIFIED, Parity, parity_words, write_parity

MANIFEST = fake_manifest()
STAMP = Parity(MANIFEST.sha256, "transformers 5, float32", None, 1.2e-7, 1.0, 0.9999)


def test_a_stamp_is_of_one_engine_only(tmp_path: Path) -> None:
    write_parity(tmp_path, STAMP)
    words = "KL 1.2e-07 nats, top-1 100.0% against transformers 5, float32"
    assert parity_words(tmp_path, MANIFEST) == words
    assert parity_words(tmp_path, replace(MANIFEST, licence="another")) == UNVERIFIED


def test_the_loss_of_a_calibrated_export_is_the_next_best(tmp_path: Path) -> None:
    calibrated = replace(MANIFEST, calibration={"loss": {"kl_nats": 5.2e-3}})
    assert parity_words(tmp_path, calibrated) == "KL 5.2e-03 nats on held-out slices, at export"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"manifest_sha256": 1}'])
def test_a_damaged_stamp_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / PARITY_NAME).write_text(text)
    assert parity_words(tmp_path, MANIFEST) == UNVERIFIED


def test_an_engine_that_failed_is_named_so(tmp_path: Path) -> None:
    write_parity(tmp_path, replace(STAMP, failed_stage="logits", kl_nats=0.6))
    assert parity_words(tmp_path, MANIFEST).startswith("FAILED verify at logits: KL 6.0e-01 nats")
    failed = replace(
        STAMP, failed_stage="ids", kl_nats=None, top1_agreement=None, image_cosine=None
    )
    write_parity(tmp_path, failed)
    words = parity_words(tmp_path, MANIFEST)
    assert words == "FAILED verify at ids against transformers 5, float32"
