import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.planted_engine import claiming
from support.schemas import assert_valid

from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.errors import CheckpointError, EngineError, ParityError
from edge_medgemma.runtime.manifest import MANIFEST_NAME, Manifest, dump_manifest, load_manifest
from edge_medgemma.runtime.parity import parity_words


@pytest.fixture
def engine(tiny_engine_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_engine_directory, tmp_path / "engine"))


def _verify(engine: Path, checkpoint: Path, *options: str) -> Result:
    arguments = ["verify", str(engine), "--checkpoint", str(checkpoint), "--threads", "1"]
    return CliRunner().invoke(cli, [*arguments, *options])


def _rewrite(engine: Path, manifest: Manifest) -> None:
    (engine / MANIFEST_NAME).write_text(dump_manifest(manifest), encoding="utf-8")


@pytest.mark.command("verify")
def test_an_engine_is_what_its_checkpoint_computes(engine: Path, tiny_checkpoint: Path) -> None:
    loss = {"kl_nats": 2e-3, "top1_agreement": 0.99, "prompts": 7}
    _rewrite(engine, replace(load_manifest(engine), calibration={"loss": loss}))
    result = _verify(engine, tiny_checkpoint)
    assert result.exit_code == 0, (result.output, result.exception)
    for prompt in ("text", "1 image", "3 images", "long text"):
        assert prompt in result.output
    assert "pass: within the limits of fp32" in result.output
    assert "at export: KL 2.00e-03 nats, top-1 99.0%, on 7 prompts" in result.output
    assert_valid(engine / "parity.json", "parity")
    assert parity_words(engine, load_manifest(engine)).startswith("KL ")


def test_another_engine_fails_and_its_stamp_says_so(
    engine: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    checkpoint = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    settings = json.loads((checkpoint / "preprocessor_config.json").read_text())
    (checkpoint / "preprocessor_config.json").write_text(json.dumps(settings | {"resample": 3}))
    result = _verify(claiming(engine, checkpoint), checkpoint, "--json")
    assert result.exit_code == 1
    assert isinstance(result.exception, ParityError)
    assert "pixels, prompt '1 image': largest difference" in str(result.exception)
    report = json.loads(result.stdout)
    assert report["verdict"]["stage"] == "pixels"
    assert report["verdict"]["is_pass"] is False
    assert report["thresholds"]["max_kl_nats"] == 1e-6
    assert report["prompts"][0]["prompt"] == "text"
    assert_valid(engine / "parity.json", "parity")
    words = parity_words(engine, load_manifest(engine))
    assert words.startswith("FAILED verify at pixels: KL ")


def test_random_weights_have_no_checkpoint(engine: Path, tiny_checkpoint: Path) -> None:
    manifest = load_manifest(engine)
    _rewrite(engine, replace(manifest, source=replace(manifest.source, kind="synthetic")))
    result = _verify(engine, tiny_checkpoint)
    assert isinstance(result.exception, EngineError)
    assert "random weights" in str(result.exception)


def test_another_checkpoint_is_refused(engine: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    (checkpoint / "config.json").write_text((checkpoint / "config.json").read_text() + "\n")
    result = _verify(engine, checkpoint)
    assert isinstance(result.exception, CheckpointError)
    assert "holds another checkpoint" in str(result.exception)
    assert not (engine / "parity.json").exists()


def test_a_checkpoint_without_a_processor_is_refused(
    engine: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    checkpoint = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    (checkpoint / "tokenizer_config.json").unlink()
    result = _verify(claiming(engine, checkpoint), checkpoint)
    assert isinstance(result.exception, CheckpointError)
    assert "tokenizer_config.json" in str(result.exception)
