"""What an engine opens in its folder is in its manifest, which holds the hash of each, or sealed."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.host_backend import HostBackend
from support.opened_files import opened_files

from edge_medgemma.runtime.backends.select import Provider, Providers
from edge_medgemma.runtime.backends.self_test.reference_outputs import REFERENCE_OUTPUTS_NAME
from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.errors import ProviderError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.manifest import MANIFEST_NAME, dump_manifest, load_manifest
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.scoring.operating_points import THRESHOLDS_NAME
from edge_medgemma.runtime.triage.triage_scan import triage_scan

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux")

UNLISTED = (
    REFERENCE_OUTPUTS_NAME, "embedding_scale.data", "decoder_prefill.onnx", "decoder_decode.onnx",
    "config.json", "tokenizer_config.json", "vision.onnx.data", "cache_scales.npz",
)  # fmt: skip


def test_a_triage_opens_nothing_that_the_manifest_does_not_list(tmp_path: Path) -> None:
    directory = Path(shutil.copytree(BUILTIN_ENGINE, tmp_path / "engine"))
    for name in UNLISTED:
        (directory / name).write_bytes(b"planted")
    scan = tmp_path / "scan"  # of the kind that the engine was made for
    assert (
        CliRunner().invoke(cli, ["phantom", "draw", str(scan), "--seed", "3000055"]).exit_code == 0
    )
    options = TriageOptions(slices=2, baseline_folder=tmp_path / "baselines")
    with opened_files(directory) as opened, Engine.open(directory, threads=1) as engine:
        report = triage_scan(engine, scan, options)
    assert any(finding.score is not None for finding in report.studies[0].findings)
    # Thresholds are fitted to a finished engine: sealed by themselves, and bound to its manifest.
    assert opened == {MANIFEST_NAME, THRESHOLDS_NAME, *load_manifest(directory).files}
    assert not opened & set(UNLISTED)


@pytest.mark.parametrize("is_listed", [True, False])
def test_reference_outputs_are_read_only_if_they_are_listed(
    tiny_tensorrt_directory: Path, tmp_path: Path, is_listed: bool
) -> None:
    directory = Path(shutil.copytree(tiny_tensorrt_directory, tmp_path / "engine"))
    if not is_listed:
        manifest = load_manifest(directory)
        files = {
            name: one
            for name, one in manifest.files.items()
            if name in set(manifest.files) - {REFERENCE_OUTPUTS_NAME}
        }
        (directory / MANIFEST_NAME).write_text(dump_manifest(replace(manifest, files=files)))
    providers = Providers(Provider.TENSORRT, Provider.TENSORRT)
    devices = {Provider.TENSORRT: HostBackend()}
    with opened_files(directory) as opened:
        engine = Engine.open(directory, threads=1, providers=providers, devices=devices)
        if is_listed:
            assert engine.choice.identities
        else:
            with pytest.raises(ProviderError, match="no reference outputs"):
                _ = engine.choice
    assert (REFERENCE_OUTPUTS_NAME in opened) == is_listed
    assert opened <= {MANIFEST_NAME, *load_manifest(directory).files}
