import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.schemas import assert_valid

from edge_medgemma.runtime.cli import cli


@pytest.mark.command("verify")
def test_an_engine_is_what_its_checkpoint_computes(
    tiny_engine_directory: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    engine = shutil.copytree(tiny_engine_directory, tmp_path / "engine")
    arguments = ["verify", str(engine), "--checkpoint", str(tiny_checkpoint)]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    for prompt in ("text", "1 image", "3 images", "longer than the window"):
        assert prompt in result.output
    assert_valid(engine / "parity.json", "parity")
