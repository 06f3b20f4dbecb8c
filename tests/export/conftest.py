"""The tiny checkpoint's fresh engine and its reference model."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import support.decoder_session
from support.tiny_checkpoint import export_tiny_engine


@pytest.fixture(scope="session")
def decoder_session() -> ModuleType:
    return support.decoder_session


@pytest.fixture(scope="session")
def engine(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint's float32 engine as the exporter writes it now."""
    folder = tmp_path_factory.mktemp("engine") / "fp32"
    export_tiny_engine(tiny_checkpoint, folder)
    return folder


@pytest.fixture(scope="session")
def reference(tiny_checkpoint: Path) -> Any:
    """transformers' own model of the checkpoint, eager attention, float32."""
    import torch
    from transformers import Gemma3ForConditionalGeneration

    torch.set_num_threads(1)
    return Gemma3ForConditionalGeneration.from_pretrained(
        tiny_checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()
