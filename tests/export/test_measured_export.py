"""Exports without slices: what they are rounded by, what they lose, and what is refused."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from click.testing import CliRunner

from edge_medgemma.calibration.prose import calibration_prose, held_out_prose
from edge_medgemma.export.calibrated_export import Budget
from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.engine import export_engine
from edge_medgemma.export.measured_export import Reference, export_measured, measure_text_loss
from edge_medgemma.export.passages import builtin_passages
from edge_medgemma.export.quantisation.float_decoder import FloatDecoder
from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.errors import CheckpointError, EngineError
from edge_medgemma.runtime.generation.masks import NO_IMAGE
from edge_medgemma.runtime.manifest import load_manifest


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint):
    return open_checkpoint(str(tiny_checkpoint))


@pytest.fixture(scope="module")
def reference(checkpoint, tmp_path_factory):
    """The float model on the held-out passages."""
    scratch = tmp_path_factory.mktemp("scratch")
    passages = builtin_passages(checkpoint, scratch)
    decoder = FloatDecoder(checkpoint, passages, scratch)
    for _ in decoder.layers():
        pass
    held_out = tuple(passage for passage in passages if passage.is_held_out)
    return Reference(held_out, decoder.logits())


@pytest.fixture
def plain(checkpoint, reference, tmp_path):
    """Loss of an engine whose weights are rounded each by itself."""

    def run(precision):
        export_engine(checkpoint, tmp_path / precision, precision=precision, block_size=32)
        return measure_text_loss(tmp_path / precision, reference)

    return run


def test_layers_one_at_a_time_are_the_whole_decoder(plain):
    loss = plain("fp32")
    assert loss.kl_nats < 1e-9, str(loss)
    assert loss.top1_agreement == 1
    assert loss.perplexity == pytest.approx(loss.float_perplexity, rel=1e-5)


def test_passages_hold_images_and_text_and_share_nothing_with_those_held_out(reference):
    assert not set(calibration_prose()) & set(held_out_prose())
    prose, scan = reference.passages
    assert (prose.rows.images == NO_IMAGE).all()
    assert set(scan.rows.images.tolist()) == {NO_IMAGE, 0, 1}
    assert scan.answer_rows.min() > np.flatnonzero(scan.rows.images != NO_IMAGE).max()


def test_integers_are_searched_by_what_the_model_reads(checkpoint, plain, tmp_path):
    nearest = plain("int4")
    _, searched = export_measured(
        checkpoint,
        tmp_path / "searched",
        precision="int4",
        block_size=32,
        budget=Budget(force=True),
    )
    print(f"KL {searched.kl_nats:.2e} searched, {nearest.kl_nats:.2e} each by itself")
    assert searched.kl_nats < 0.8 * nearest.kl_nats


def test_the_loss_is_that_of_the_engine_that_is_kept(checkpoint, reference, tmp_path):
    manifest, loss = export_measured(
        checkpoint, tmp_path / "engine", precision="int8", block_size=32, budget=Budget()
    )
    again = measure_text_loss(tmp_path / "engine", reference)
    assert again.kl_nats == pytest.approx(loss.kl_nats, rel=1e-3)
    assert load_manifest(tmp_path / "engine").calibration["loss"]["kl_nats"] == loss.kl_nats
    assert manifest.calibration["int8_layers"] == []
    assert [path.name for path in tmp_path.iterdir()] == ["engine"]


def test_auto_spends_bits_until_the_loss_is_accepted(checkpoint, tmp_path):
    def export(name, limit):
        manifest, loss = export_measured(
            checkpoint,
            tmp_path / name,
            precision="auto",
            block_size=32,
            budget=Budget(max_kl=limit),
        )
        assert loss.kl_nats <= limit
        return manifest, loss

    manifest, loss = export("int4", 1.0)
    assert manifest.precision.decoder == "int4"
    assert manifest.calibration["int8_layers"] == []
    manifest, _ = export("more", 0.5 * loss.kl_nats)
    assert manifest.precision.decoder == "int8" or manifest.calibration["int8_layers"]


def test_a_loss_that_no_precision_keeps_leaves_nothing(checkpoint, tmp_path):
    with pytest.raises(EngineError, match=r"the int8 engine loses .* nats on held-out prose"):
        export_measured(
            checkpoint,
            tmp_path / "engine",
            precision="auto",
            block_size=32,
            budget=Budget(max_kl=1e-9),
        )
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_the_loss_before_it_is_done(tiny_checkpoint, tmp_path):
    arguments = ["export", str(tiny_checkpoint), "-o", str(tmp_path / "engine")]
    made = CliRunner().invoke(cli, arguments)
    assert made.exit_code == 0, made.output
    loss, done = made.stdout.splitlines()
    assert loss.startswith("int4") and "on held-out prose and a drawn head: KL 0.0" in loss
    assert "GB in" in done


@pytest.mark.parametrize("precision", ["auto", "int4", "int8"])
def test_blocks_that_do_not_divide_the_inputs_are_refused_before_anything_is_read(
    checkpoint, tmp_path, precision
):
    with pytest.raises(CheckpointError, match="96 inputs, which blocks of 64 do not divide"):
        export_measured(
            checkpoint,
            tmp_path / "engine",
            precision=precision,
            block_size=64,
            budget=Budget(),
            on_stage=lambda stage, done, total: pytest.fail("the model was read"),
        )
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_no_number_is_refused_whatever_is_forced():
    for budget in (Budget(), Budget(force=True)):
        with pytest.raises(EngineError, match="computes no numbers on text"):
            budget.check(float("nan"), "int4", "on text")
    with pytest.raises(EngineError, match="more than nan"):
        Budget(max_kl=float("nan")).check(0.1, "int4", "on text")


def test_a_float_model_that_overflows_is_refused(checkpoint, tmp_path):
    name = "text.layers.2.input_layernorm.weight"
    broken = dict(checkpoint.tensors)
    broken[name] = _Constant(checkpoint.tensors[name].shape, np.float32(1e38))
    with pytest.raises(CheckpointError, match=r"reaches .* of layer 2, expected at most 1e\+15"):
        export_measured(
            replace(checkpoint, tensors=broken),
            tmp_path / "engine",
            precision="int4",
            block_size=32,
            budget=Budget(force=True),
        )
    assert list(tmp_path.iterdir()) == []


@dataclass(frozen=True)
class _Constant:
    shape: tuple[int, ...]
    value: np.float32

    def read(self, *index):
        return np.full(self.shape, self.value)[index]
