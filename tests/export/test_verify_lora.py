"""An engine that holds an adapter is verified with that adapter and with no other."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.tiny_checkpoint import export_tiny_engine

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.engine import export_engine
from edge_medgemma.export.verification.run import verify_engine
from edge_medgemma.export.verification.verdict import judge, thresholds_for
from edge_medgemma.runtime.errors import CheckpointError, DependencyError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.manifest import MANIFEST_NAME, dump_manifest

TARGETS = r".*language_model\.layers\.[05]\..*_proj"


@pytest.fixture(scope="module")
def adapters(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two adapters of the tiny checkpoint, saved by PEFT."""
    import peft
    import torch
    from transformers import Gemma3ForConditionalGeneration

    folders = tmp_path_factory.mktemp("adapters")
    for seed in range(2):
        torch.manual_seed(seed)
        model = Gemma3ForConditionalGeneration.from_pretrained(tiny_checkpoint, dtype=torch.float32)
        model = peft.get_peft_model(
            model, peft.LoraConfig(r=4, lora_alpha=10, target_modules=TARGETS)
        )
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0, 0.1)
        model.save_pretrained(folders / str(seed))
    return folders / "0", folders / "1"


@pytest.fixture(scope="module")
def adapted_engine(
    tiny_checkpoint: Path, adapters: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    directory = tmp_path_factory.mktemp("adapted") / "engine"
    opened = open_checkpoint(str(tiny_checkpoint), adapter=adapters[0])
    export_engine(opened, directory, precision="fp32", block_size=32)
    return directory


def test_peft_merges_what_the_engine_holds(
    adapted_engine: Path, tiny_checkpoint: Path, adapters: tuple[Path, Path]
) -> None:
    with Engine.open(adapted_engine, threads=1) as engine:
        comparisons = verify_engine(engine, tiny_checkpoint, adapter=adapters[0], greedy_tokens=4)
        verdict = judge(comparisons, thresholds_for(engine.manifest.precision))
    assert verdict.is_pass, verdict


def test_an_adapter_that_was_not_merged_shows_in_the_logits(
    tiny_checkpoint: Path, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    """As an exporter that records an adapter and forgets to merge it."""

    manifest = export_tiny_engine(tiny_checkpoint, tmp_path / "engine")
    adapter_sha256 = open_checkpoint(str(tiny_checkpoint), adapter=adapters[0]).adapter_sha256
    source = replace(manifest.source, adapter_sha256=adapter_sha256)
    (tmp_path / "engine" / MANIFEST_NAME).write_text(
        dump_manifest(replace(manifest, source=source))
    )
    with Engine.open(tmp_path / "engine", threads=1) as engine:
        comparisons = verify_engine(engine, tiny_checkpoint, adapter=adapters[0], greedy_tokens=4)
        verdict = judge(comparisons, thresholds_for(engine.manifest.precision))
    assert (verdict.stage, verdict.prompt) == ("logits", "text"), verdict


@pytest.mark.parametrize(
    ("engine_has", "given", "words"),
    [
        (True, None, "name its folder with --lora"),
        (True, 1, "is not the engine's"),
        (False, 0, "exported without an adapter"),
    ],
)
def test_other_adapters_are_refused(
    adapted_engine: Path,
    tiny_engine_directory: Path,
    tiny_checkpoint: Path,
    adapters: tuple[Path, Path],
    engine_has: bool,
    given: int | None,
    words: str,
) -> None:
    adapter = None if given is None else adapters[given]
    with (
        Engine.open(adapted_engine if engine_has else tiny_engine_directory, threads=1) as engine,
        pytest.raises(CheckpointError, match=words),
    ):
        verify_engine(engine, tiny_checkpoint, adapter=adapter)


def test_a_missing_peft_is_named_with_its_extra(
    adapted_engine: Path,
    tiny_checkpoint: Path,
    adapters: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with (
        Engine.open(adapted_engine, threads=1) as engine,
        pytest.raises(DependencyError, match=r"verify needs 'peft'.*\[cpu,verify\]"),
    ):
        verify_engine(engine, tiny_checkpoint, adapter=adapters[0])
