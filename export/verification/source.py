"""Whether an engine was exported from the checkpoint and adapter that it is verified against."""

from pathlib import Path

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.runtime.errors import CheckpointError, EngineError
from edge_medgemma.runtime.manifest import Manifest


def require_source(manifest: Manifest, checkpoint: Path, adapter: Path | None) -> None:
    """Refuse any other checkpoint or adapter than the engine's, by their SHA-256.

    Raises:
        CheckpointError: they are others, or cannot be read.
        EngineError: the engine has random weights, which stand in no folder.
    """
    source = manifest.source
    if manifest.has_random_weights:
        raise EngineError(
            f"the engine holds the random weights '{source.name}', which stand in no checkpoint; "
            "verify an engine that was exported from a checkpoint folder"
        )
    if source.adapter_sha256 is not None and adapter is None:
        raise CheckpointError(
            f"the engine holds a LoRA adapter ({source.adapter_sha256[:12]}); name its folder "
            "with --lora"
        )
    if source.adapter_sha256 is None and adapter is not None:
        raise CheckpointError(
            f"the engine was exported without an adapter; leave out --lora '{adapter}', or export "
            "the engine again with it"
        )
    if not checkpoint.is_dir():
        raise CheckpointError(
            f"no checkpoint folder at '{checkpoint}'; expected the folder the engine was exported "
            "from"
        )
    opened = open_checkpoint(str(checkpoint), adapter=adapter)
    if opened.adapter_sha256 != source.adapter_sha256:
        raise CheckpointError(
            f"the adapter in '{adapter}' ({_short(opened.adapter_sha256)}) is not the engine's "
            f"({_short(source.adapter_sha256)}); name the folder that export was given"
        )
    found = opened.fingerprint()
    if found != source.sha256:
        raise CheckpointError(
            f"the engine was exported from '{source.name}' ({_short(source.sha256)}), "
            f"'{checkpoint}' holds another checkpoint ({_short(found)}); name the folder it was "
            "exported from, or export it again"
        )


def _short(sha256: str | None) -> str:
    return "none" if sha256 is None else f"SHA-256 {sha256[:12]}"
