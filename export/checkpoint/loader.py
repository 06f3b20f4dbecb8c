"""Opening a Gemma 3 checkpoint: a local folder or a hub id, with or without a LoRA adapter."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edge_medgemma.export.checkpoint.chat_template import read_chat_template
from edge_medgemma.export.checkpoint.checkpoint import Checkpoint, Tensor, files_sha256, read_json
from edge_medgemma.export.checkpoint.config import text_spec, vision_spec
from edge_medgemma.export.checkpoint.hub import download
from edge_medgemma.export.checkpoint.lora import with_adapter
from edge_medgemma.export.checkpoint.processor import processor_config
from edge_medgemma.export.checkpoint.safetensors_file import StoredTensor, open_safetensors
from edge_medgemma.export.checkpoint.tensor_names import (
    EMBEDDING,
    HEAD,
    canonical_name,
    expected_shapes,
)
from edge_medgemma.export.checkpoint.tokens import special_token_ids, token_spec
from edge_medgemma.runtime.errors import CheckpointError
from edge_medgemma.runtime.model_shape import TextSpec, VisionSpec

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
_HUB_ID = re.compile(r"\w[\w-]*/\w[\w.-]*")


def open_checkpoint(
    name: str, revision: str | None = None, adapter: Path | None = None
) -> Checkpoint:
    """Open a checkpoint folder or a hub id such as google/medgemma-1.5-4b-it.

    `adapter` is the folder of a PEFT LoRA adapter to merge into the weights as they are read.

    Raises:
        CheckpointError: no such folder or model, gated, offline, another architecture, a missing,
            unknown, misshapen or damaged tensor.
    """
    folder = Path(name)
    if folder.is_dir():
        checkpoint = _open_folder(folder, folder.resolve().name, None)
    elif _HUB_ID.fullmatch(name):
        folder = download(name, revision)
        checkpoint = _open_folder(folder, name, folder.name)
    else:
        raise CheckpointError(
            f"no checkpoint folder at '{name}'; expected a folder with config.json and "
            "model.safetensors, or a hub id such as google/medgemma-1.5-4b-it"
        )
    if adapter is None:
        return checkpoint
    return with_adapter(checkpoint, adapter)


def _open_folder(folder: Path, name: str, revision: str | None) -> Checkpoint:
    config = read_json(folder / "config.json")
    if config.get("model_type") != "gemma3":
        text_spec(config, np.dtype(np.float32))  # says why it is refused, before looking for files
    weight_files = _weight_files(folder)
    tensors = _open_tensors(weight_files)
    if EMBEDDING not in tensors:
        raise CheckpointError(f"'{name}' has no token embedding; the checkpoint is incomplete")
    text = text_spec(config, tensors[EMBEDDING].dtype)
    vision = vision_spec(config, processor_config(folder))
    if config.get("tie_word_embeddings", True):
        tensors.pop(HEAD, None)
    _check_tensors(tensors, text, vision)
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise CheckpointError(f"'{name}' has no tokenizer.json; add the one of the original model")
    tokens = token_spec(
        config, read_json(folder / "generation_config.json", {}), special_token_ids(tokenizer)
    )
    read_files = [folder / "config.json", tokenizer, *weight_files]
    return Checkpoint(
        kind="checkpoint",
        name=name,
        revision=revision,
        text=text,
        vision=vision,
        tokens=tokens,
        tensors=tensors,
        tokenizer_json=tokenizer.read_bytes(),
        chat_template=read_chat_template(folder),
        fingerprint=lambda: files_sha256(read_files),
    )


def _weight_files(folder: Path) -> list[Path]:
    if not (folder / INDEX_NAME).is_file():
        if not (folder / SINGLE_NAME).is_file():
            raise CheckpointError(
                f"'{folder}' has neither {SINGLE_NAME} nor {INDEX_NAME}; pickled weights are not "
                "read, convert them to safetensors"
            )
        return [folder / SINGLE_NAME]
    index = read_json(folder / INDEX_NAME)
    names = sorted(set(index.get("weight_map", {}).values()))
    missing = [shard for shard in names if not (folder / shard).is_file()]
    if missing or not names:
        raise CheckpointError(
            f"'{folder}' lacks {missing[0] if missing else 'every shard'} that {INDEX_NAME} names; "
            "download the checkpoint again"
        )
    return [folder / shard for shard in names]


def _open_tensors(weight_files: list[Path]) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for path in weight_files:
        for stored, tensor in open_safetensors(path).items():
            name = canonical_name(stored)
            if name in tensors:
                raise CheckpointError(
                    f"tensor '{stored}' is stored twice; export the original files"
                )
            if name is not None:
                tensors[name] = tensor
    return tensors


def _check_tensors(tensors: Mapping[str, Tensor], text: TextSpec, vision: VisionSpec) -> None:
    expected = expected_shapes(text, vision)
    if HEAD in tensors:
        expected[HEAD] = expected[EMBEDDING]
    for name, shape in expected.items():
        if name not in tensors:
            raise CheckpointError(
                f"the checkpoint has no tensor '{name}'; download it again, or check that "
                "config.json belongs to it"
            )
        if tensors[name].shape != shape:
            raise CheckpointError(
                f"tensor '{name}' has shape {tensors[name].shape}, config.json says {shape}"
            )
    unknown = sorted(set(tensors) - set(expected))
    if unknown:
        raise CheckpointError(
            f"the checkpoint has a tensor '{unknown[0]}' that Gemma 3 does not; leaving it out "
            "would change the model (merge an adapter with --lora)"
        )
