"""Merging a PEFT LoRA adapter into the weights as they are read: W + scale * B @ A.

The adapter's format is PEFT's: adapter_config.json and adapter_model.safetensors, with a pair
`<module>.lora_A.weight` [r, in] and `<module>.lora_B.weight` [out, r] for every adapted module.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.export.checkpoint.adapter_config import LoraConfig, lora_config
from edge_medgemma.export.checkpoint.checkpoint import Checkpoint, Tensor, files_sha256, read_json
from edge_medgemma.export.checkpoint.safetensors_file import StoredTensor, finite, open_safetensors
from edge_medgemma.export.checkpoint.tensor_names import EMBEDDING, HEAD, canonical_name
from edge_medgemma.runtime.errors import CheckpointError

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
_KEY = re.compile(
    r"^(base_model\.model\.)?(?P<module>.+)\.lora_(?P<part>[AB])(\.(?P<adapter>.+))?\.weight$"
)
_TEXT_CLASS = re.compile(r"^(model\.)?(?=(layers|embed_tokens|norm)\.)")
"""How modules begin in Gemma3ForCausalLM and Gemma3TextModel, the language model by itself."""


@dataclass(frozen=True, slots=True)
class AdaptedTensor:
    """A weight [N, K] with its low-rank update, merged where it is read."""

    name: str
    base: Tensor
    down: NDArray[np.float32]
    """A, [r, K]"""
    up: NDArray[np.float32]
    """B times the scale, [N, r]"""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    def read(self, *index: slice) -> NDArray[np.float32]:
        """The merged part that `index` selects, float32, finite."""
        rows, columns = (*index, slice(None), slice(None))[:2]
        merged = self.base.read(*index) + self.up[rows] @ self.down[:, columns]
        return finite(self.name, merged)


def with_adapter(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """The checkpoint with the adapter in `folder` merged into every weight it names.

    Raises:
        CheckpointError: not a plain LoRA adapter, or for another model.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"no adapter folder at '{folder}'; expected one with {CONFIG_NAME} and {WEIGHTS_NAME}"
        )
    if not (folder / CONFIG_NAME).is_file():
        raise CheckpointError(
            f"'{folder}' has no {CONFIG_NAME}; expected the folder of a LoRA adapter as PEFT saves it"
        )
    config = lora_config(read_json(folder / CONFIG_NAME))
    tensors = dict(checkpoint.tensors)
    for module, pair in _pairs(_open_weights(folder)).items():
        name = _weight_name(module, tensors)
        if not (config.targets(module) or config.targets(_name_in_transformers_5(module))):
            raise CheckpointError(
                f"the adapter holds a pair for '{module}', which its target_modules leave out; PEFT "
                "would not use it, so save the adapter with PEFT again"
            )
        if isinstance(tensors[name], AdaptedTensor):
            raise CheckpointError(f"the adapter changes '{module}' twice, under two names")
        tensors[name] = _adapted(name, module, tensors[name], pair, config)
    return replace(
        checkpoint,
        tensors=tensors,
        adapter_sha256=files_sha256([folder / CONFIG_NAME, folder / WEIGHTS_NAME]),
    )


def _open_weights(folder: Path) -> dict[str, StoredTensor]:
    if (folder / WEIGHTS_NAME).is_file():
        return open_safetensors(folder / WEIGHTS_NAME)
    pickled = folder / "adapter_model.bin"
    what = "only the pickled adapter_model.bin" if pickled.is_file() else f"no {WEIGHTS_NAME}"
    raise CheckpointError(
        f"'{folder}' has {what}; load the adapter with PEFT and save it with save_pretrained"
    )


def _weight_name(module: str, tensors: Mapping[str, Tensor]) -> str:
    """The internal name of the weight of a module, of the whole model or of the text class."""
    name = canonical_name(_TEXT_CLASS.sub("model.language_model.", module) + ".weight")
    if name == EMBEDDING or (name == HEAD and HEAD not in tensors):
        raise CheckpointError(
            f"the adapter changes '{module}', which is both embedding and head; merge it with "
            "PEFT before exporting"
        )
    if name is None or name not in tensors:
        raise CheckpointError(
            f"the adapter changes '{module}', which this checkpoint lacks; it belongs to another "
            "model"
        )
    return name


def _name_in_transformers_5(module: str) -> str:
    """The module as transformers 5 names it, which is how PEFT there compares it with patterns."""
    name = canonical_name(module + ".") or module
    for prefix, renamed in (("text.", "model.language_model."), ("vision.", "model.vision_tower.")):
        if name.startswith(prefix):
            return renamed + name.removeprefix(prefix).removesuffix(".")
    return module


def _pairs(stored: Mapping[str, StoredTensor]) -> dict[str, dict[str, StoredTensor]]:
    """Module -> its A and B."""
    pairs: dict[str, dict[str, StoredTensor]] = {}
    for key, tensor in stored.items():
        match = _KEY.match(key)
        if match is None:
            raise CheckpointError(
                f"the adapter holds '{key}', which is no part of a LoRA pair; merge it with PEFT's "
                "merge_and_unload and export the result"
            )
        if match["adapter"] not in (None, "default"):
            raise CheckpointError(
                f"the adapter's key '{key}' carries the name '{match['adapter']}', which PEFT would "
                "not load; save the adapter with PEFT's save_pretrained"
            )
        pair = pairs.setdefault(match["module"], {})
        if match["part"] in pair:
            raise CheckpointError(f"the adapter holds '{key}' twice, under two names")
        pair[match["part"]] = tensor
    for module, pair in pairs.items():
        if len(pair) != 2:
            raise CheckpointError(f"the adapter has only half of the pair of '{module}'")
    if not pairs:
        raise CheckpointError("the adapter changes nothing; check that it was saved after training")
    return pairs


def _adapted(
    name: str,
    module: str,
    base: Tensor,
    pair: Mapping[str, StoredTensor],
    config: LoraConfig,
) -> AdaptedTensor:
    down, up = pair["A"].read(), pair["B"].read()
    fits = len(down.shape) == len(up.shape) == len(base.shape) == 2
    if not fits or base.shape != (up.shape[0], down.shape[1]) or up.shape[1] != down.shape[0]:
        raise CheckpointError(
            f"the adapter's update of '{module}' is {up.shape} x {down.shape}, the weight is "
            f"{base.shape}; the adapter belongs to another model"
        )
    names = (module, _name_in_transformers_5(module))
    ranks, scales = {config.rank_of(one) for one in names}, {config.scale_of(one) for one in names}
    if ranks != {down.shape[0]}:
        raise CheckpointError(
            f"the adapter's pair of '{module}' has rank {down.shape[0]}, adapter_config.json says "
            f"{' or '.join(map(str, sorted(ranks)))} (r, rank_pattern); they belong to two adapters"
        )
    if len(scales) != 1:
        raise CheckpointError(
            f"alpha_pattern of adapter_config.json fits '{names[0]}' otherwise than '{names[1]}', "
            "the name of transformers 5; merge the adapter with PEFT's merge_and_unload"
        )
    return AdaptedTensor(name, base, down, up * np.float32(scales.pop()))
