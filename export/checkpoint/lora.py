"""Merging a PEFT LoRA adapter into the weights as they are read: W + scale * B @ A.

The adapter's format is PEFT's: adapter_config.json and adapter_model.safetensors, with a pair
`<module>.lora_A.weight` [r, in] and `<module>.lora_B.weight` [out, r] for every adapted module.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.export.checkpoint.checkpoint import Checkpoint, Tensor, files_sha256, read_json
from edge_medgemma.export.checkpoint.safetensors_file import StoredTensor, finite, open_safetensors
from edge_medgemma.export.checkpoint.tensor_names import EMBEDDING, HEAD, canonical_name
from edge_medgemma.runtime.errors import CheckpointError

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
_KEY = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])(\.default)?\.weight$")

UNSUPPORTED = ("use_dora", "fan_in_fan_out", "lora_bias", "megatron_config", "layer_replication")
"""Options of adapter_config.json that change what the pair of matrices means."""


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
    config = read_json(folder / CONFIG_NAME)
    _require_plain_lora(config)
    if not (folder / WEIGHTS_NAME).is_file():
        raise CheckpointError(f"'{folder}' has no {WEIGHTS_NAME}; save the adapter with PEFT again")
    tensors = dict(checkpoint.tensors)
    for module, pair in _pairs(open_safetensors(folder / WEIGHTS_NAME)).items():
        name = canonical_name(f"{module}.weight")
        if name in (EMBEDDING, HEAD):
            raise CheckpointError(
                f"the adapter changes '{module}', which is both embedding and head; merge it with "
                "PEFT before exporting"
            )
        if name is None or name not in tensors:
            raise CheckpointError(f"the adapter changes '{module}', which this checkpoint lacks")
        tensors[name] = _adapted(name, module, tensors[name], pair, config)
    return replace(
        checkpoint,
        tensors=tensors,
        adapter_sha256=files_sha256([folder / CONFIG_NAME, folder / WEIGHTS_NAME]),
    )


def _require_plain_lora(config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(
            f"the adapter is of type '{kind}'; only LORA is merged here, others with PEFT's "
            "merge_and_unload"
        )
    for option in UNSUPPORTED:
        if config.get(option):
            raise CheckpointError(
                f"the adapter uses {option}, which is not merged here; merge it with PEFT's "
                "merge_and_unload and export the result"
            )
    if config.get("bias", "none") != "none":
        raise CheckpointError(
            f"the adapter trains biases ('{config['bias']}'); merge it with PEFT's merge_and_unload"
        )


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
        pairs.setdefault(match["module"], {})[match["part"]] = tensor
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
    config: Mapping[str, Any],
) -> AdaptedTensor:
    down, up = pair["A"].read(), pair["B"].read()
    rank = down.shape[0]
    if len(base.shape) != 2 or base.shape != (up.shape[0], down.shape[-1]) or up.shape[1] != rank:
        raise CheckpointError(
            f"the adapter's update of '{module}' is {up.shape} x {down.shape}, the weight is "
            f"{base.shape}; the adapter belongs to another model"
        )
    alpha = float(_for_module(config.get("alpha_pattern"), module, config["lora_alpha"]))
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return AdaptedTensor(name, base, down, up * np.float32(scale))


def _for_module(pattern: Mapping[str, float] | None, module: str, default: float) -> float:
    """PEFT's per-module override: the first pattern that ends the module's name."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default
