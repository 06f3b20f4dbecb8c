"""Changing the files of a checkpoint's copy."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

Tensors = dict[str, NDArray[Any]]


def rewrite_weights(folder: Path, change: Callable[[Tensors], Mapping[str, NDArray[Any]]]) -> None:
    """Replace model.safetensors by what `change` makes of its tensors."""
    path = folder / "model.safetensors"
    changed = {name: np.ascontiguousarray(array) for name, array in change(load_file(path)).items()}
    save_file(changed, path, metadata={"format": "pt"})


def write_shards(folder: Path, tensors: Tensors) -> None:
    """Two shards with half of the tensors each, and their index."""
    names = sorted(tensors)
    middle = len(names) // 2
    shards = {"model-00001-of-00002.safetensors": names[:middle],
              "model-00002-of-00002.safetensors": names[middle:]}  # fmt: skip
    for shard, part in shards.items():
        save_file({name: tensors[name] for name in part}, folder / shard, {"format": "pt"})
    weight_map = {name: shard for shard, part in shards.items() for name in part}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def rewrite_json(path: Path, change: Mapping[str, Any]) -> None:
    """Replace keys of a JSON object."""
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(change)))
