"""Opening a Gemma 3 checkpoint: a local folder or a hub id, with or without a LoRA adapter."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from edge_medgemma.export.checkpoint.chat_template import read_chat_template, require_working_prompt
from edge_medgemma.export.checkpoint.checkpoint import Checkpoint, files_sha256, read_json
from edge_medgemma.export.checkpoint.config import require_gemma3, text_spec, vision_spec
from edge_medgemma.export.checkpoint.head import with_head
from edge_medgemma.export.checkpoint.hub import download
from edge_medgemma.export.checkpoint.lora import with_adapter
from edge_medgemma.export.checkpoint.processor import processor_config
from edge_medgemma.export.checkpoint.safetensors_file import StoredTensor, stored_tensor
from edge_medgemma.export.checkpoint.tensor_names import (
    EMBEDDING,
    HEAD,
    expected_shapes,
)
from edge_medgemma.export.checkpoint.tokenizer_files import TOKENIZER_NAME, read_tokenizer
from edge_medgemma.export.checkpoint.tokens import token_spec
from edge_medgemma.export.checkpoint.weight_files import (
    StoredName,
    require_no_adapter,
    require_weights,
    stored_names,
    weight_files,
)
from edge_medgemma.runtime.errors import CheckpointError

_HUB_ID = re.compile(r"\w[\w-]*/\w[\w.-]*")


def open_checkpoint(
    name: str,
    revision: str | None = None,
    adapter: Path | None = None,
) -> Checkpoint:
    """Open a checkpoint folder or a hub id such as google/medgemma-1.5-4b-it.

    Args:
        name: folder or hub id
        revision: branch, tag or commit of a hub id
        adapter: folder of a PEFT LoRA adapter to merge into the weights as they are read

    Raises:
        CheckpointError: no such folder or model, gated, offline, another architecture, a missing,
            unknown, misshapen or damaged tensor, an adapter that is not merged, settings of a
            processor that an engine does not have, a prompt that would lack something.
    """
    if os.path.isdir(name):
        folder, revision = Path(name), None
        name = folder.resolve().name
    elif os.path.exists(name):
        raise CheckpointError(
            f"'{name}' is a file; expected the folder of a checkpoint, with config.json and "
            ".safetensors files"
        )
    elif _HUB_ID.fullmatch(name):
        folder = download(name, revision)
        revision = folder.name
    else:
        raise CheckpointError(
            f"no checkpoint folder at '{name}'; expected a folder with config.json and "
            "model.safetensors, or a hub id such as google/medgemma-1.5-4b-it"
        )
    try:
        require_no_adapter(folder, adapter)
        checkpoint = _open_folder(folder, name, revision)
        return checkpoint if adapter is None else with_adapter(checkpoint, adapter)
    except OSError as error:
        raise CheckpointError(
            f"'{error.filename or folder}' cannot be read: {error.strerror or error}"
        ) from None


def _open_folder(folder: Path, name: str, revision: str | None) -> Checkpoint:
    require_weights(folder)
    config = read_json(folder / "config.json")
    require_gemma3(config)
    files = weight_files(folder)
    places = stored_names(files)
    tables = with_head(_opened(places, (EMBEDDING, HEAD)), config)
    text = text_spec(config, tables[EMBEDDING].dtype)
    vision = vision_spec(config, processor_config(folder))
    tensors = _matching(places, tables, expected_shapes(text, vision))
    tokenizer = read_tokenizer(folder)
    generation = read_json(folder / "generation_config.json", {})
    tokens = token_spec(config, generation, tokenizer, text.vocabulary)
    template = read_chat_template(folder)
    require_working_prompt(
        template,
        tokenizer,
        tokens,
        tokens_per_image=vision.tokens_per_image,
        vocabulary=text.vocabulary,
    )
    read_files = [folder / "config.json", folder / TOKENIZER_NAME, *files]
    return Checkpoint(
        kind="checkpoint",
        name=name,
        revision=revision,
        text=text,
        vision=vision,
        tokens=tokens,
        tensors=tensors,
        tokenizer_json=tokenizer.content,
        chat_template=template,
        fingerprint=lambda: files_sha256(read_files),
    )


def _opened(places: Mapping[str, StoredName], names: Iterable[str]) -> dict[str, StoredTensor]:
    return {
        name: stored_tensor(places[name].path, places[name].name, places[name].entry)
        for name in names
        if name in places
    }


def _matching(
    places: Mapping[str, StoredName],
    tables: Mapping[str, StoredTensor],
    expected: dict[str, tuple[int, ...]],
) -> dict[str, StoredTensor]:
    """The stored tensors, each of which config.json has a place for, and every one of its shape."""
    unknown = min(places.keys() - expected.keys() - {HEAD}, default=None)
    if unknown is not None:
        raise CheckpointError(
            f"the checkpoint has a tensor '{places[unknown].name}' that config.json has no place "
            "for; leaving it out would change the model, check that config.json belongs to it"
        )
    found = _opened(places, expected) | dict(tables)
    if HEAD in tables:
        expected = {**expected, HEAD: expected[EMBEDDING]}
    for name, shape in expected.items():
        if name not in found:
            raise CheckpointError(
                f"the checkpoint has no tensor '{name}'; download it again, or check that "
                "config.json belongs to it"
            )
        if found[name].shape != shape:
            raise CheckpointError(
                f"tensor '{found[name].name}' has shape {found[name].shape}, config.json says {shape}"
            )
    return found
