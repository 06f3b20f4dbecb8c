"""One tiny checkpoint, its reference model and its fp32 engine for all export tests."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import support.decoder_session
from support.tiny_checkpoint import build_tiny_checkpoint

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.engine import export_engine


@pytest.fixture(scope="session")
def decoder_session() -> ModuleType:
    return support.decoder_session


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny random checkpoint, float32; do not write to it."""
    pytest.importorskip("transformers")
    return build_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def reference(checkpoint_folder: Path) -> Any:
    """transformers' own model of the checkpoint, eager attention, float32."""
    import torch
    from transformers import Gemma3ForConditionalGeneration

    torch.set_num_threads(1)
    return Gemma3ForConditionalGeneration.from_pretrained(
        checkpoint_folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


@pytest.fixture(scope="session")
def engine(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fp32 engine directory of the tiny checkpoint."""
    folder = tmp_path_factory.mktemp("engine") / "fp32"
    export_engine(open_checkpoint(str(checkpoint_folder)), folder, precision="fp32", block_size=32)
    return folder
