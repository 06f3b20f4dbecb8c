"""Which files of a folder hold the weights: the choice of transformers' from_pretrained.

model.safetensors comes before the shards of model.safetensors.index.json; everything else (another
name, a variant such as model.fp16.safetensors, pickled files) is not looked at. Where both are there
and differ, nothing is chosen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_medgemma.export.checkpoint.checkpoint import read_json
from edge_medgemma.export.checkpoint.safetensors_file import Entry, read_header, same_bytes
from edge_medgemma.export.checkpoint.tensor_names import canonical_name, why_foreign
from edge_medgemma.runtime.errors import CheckpointError

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
ADAPTER_CONFIG_NAME = "adapter_config.json"

_OTHER_FORMATS = (
    ("*.gguf", "GGUF holds quantised weights in an order of llama.cpp's"),
    ("*.bin", "pickled weights can run code when they are opened"),
    ("*.pt", "pickled weights can run code when they are opened"),
    ("*.pth", "pickled weights can run code when they are opened"),
    ("*.ckpt", "pickled weights can run code when they are opened"),
    ("*.h5", "Keras weights have other names and layouts"),
    ("*.msgpack", "Flax weights have other names and layouts"),
    ("*.safetensors", f"transformers reads {SINGLE_NAME} or the shards of {INDEX_NAME}"),
)
_CONVERT = (
    "load it with transformers and save it with save_pretrained, or download the original model"
)


@dataclass(frozen=True, slots=True)
class StoredName:
    """Where a tensor is stored."""

    path: Path
    name: str
    entry: Entry


def require_no_adapter(folder: Path, given: Path | None) -> None:
    """A LoRA adapter in the model's folder, which transformers would merge, is the one that is given.

    Raises:
        CheckpointError: it is not.
    """
    if not (folder / ADAPTER_CONFIG_NAME).is_file() or not (folder / CONFIG_NAME).is_file():
        return
    if given is None or not (given.is_dir() and given.samefile(folder)):
        raise CheckpointError(
            f"'{folder}' holds a LoRA adapter beside the model, which transformers would merge: "
            f"give --lora '{folder}' to merge it, or move {ADAPTER_CONFIG_NAME} away"
        )


def require_weights(folder: Path) -> None:
    """The folder holds a model that can be read, as far as the names of its files tell.

    Raises:
        CheckpointError: it is an adapter's, empty, or its weights are in another format.
    """
    names = (CONFIG_NAME, SINGLE_NAME, INDEX_NAME)
    if not any((folder / name).is_file() for name in names):
        raise _no_weights(folder)


def weight_files(folder: Path) -> list[Path]:
    """The .safetensors files that hold the folder's weights, by name.

    Raises:
        CheckpointError: no weights, missing shards, weights in another format, or two models.
    """
    single, index = folder / SINGLE_NAME, folder / INDEX_NAME
    if not single.is_file():
        if not index.is_file():
            raise _no_weights(folder)
        return _shards(folder)
    if index.is_file() and (shards := _complete_shards(folder)) is not None:
        _require_same(folder, single, shards)
    return [single]


def stored_names(files: list[Path]) -> dict[str, StoredName]:
    """Internal name -> where it is stored, without what no Gemma 3 graph reads.

    Raises:
        CheckpointError: a damaged file, or a tensor that is stored twice.
    """
    found: dict[str, StoredName] = {}
    for path in files:
        for stored, entry in read_header(path).items():
            name = canonical_name(stored)
            if name is None:
                continue
            if (reason := why_foreign(stored)) is not None:
                raise CheckpointError(
                    f"'{path.name}' has a tensor '{stored}', which Gemma 3 does not: {reason}"
                )
            if name in found:
                other = found[name]
                raise CheckpointError(
                    f"one tensor is stored twice, as '{other.name}' in '{other.path.name}' and as "
                    f"'{stored}' in '{path.name}'; one may be the base model's and one the "
                    "fine-tuned one's, so export a folder that holds one of them"
                )
            found[name] = StoredName(path, stored, entry)
    return found


def _shards(folder: Path) -> list[Path]:
    """The shards of the index, each complete and as it lists them."""
    weight_map = _weight_map(folder)
    files = [folder / name for name in sorted(set(weight_map.values()))]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise CheckpointError(
            f"'{folder}' lacks {missing[0].name} that {INDEX_NAME} names"
            f"{_unfinished(folder)}; download the checkpoint again"
        )
    for path in files:
        stored = read_header(path).keys()
        listed = {name for name, shard in weight_map.items() if shard == path.name}
        for names, which in ((listed - stored, "lists {} in {}, which lacks it"),
                             (stored - listed, "does not list {} of {}")):  # fmt: skip
            if names:
                what = which.format(f"'{min(names)}'", path.name)
                raise CheckpointError(
                    f"{INDEX_NAME} {what}; index and shards are of two downloads, download again"
                )
    return files


def _weight_map(folder: Path) -> Mapping[str, str]:
    weight_map = read_json(folder / INDEX_NAME).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"'{folder / INDEX_NAME}' has no weight_map of tensors to files; download it again"
        )
    for shard in weight_map.values():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):  # fmt: skip
            raise CheckpointError(
                f"{INDEX_NAME} names the shard {shard!r}; expected a .safetensors file of its folder"
            )
    return weight_map


def _complete_shards(folder: Path) -> list[Path] | None:
    """The shards beside a model.safetensors; None where they make no whole model."""
    try:
        return _shards(folder)
    except CheckpointError:
        return None


def _require_same(folder: Path, single: Path, shards: list[Path]) -> None:
    """Shards beside model.safetensors hold what it holds, or it is not clear which one is meant."""
    one, other = stored_names([single]), stored_names(shards)
    differing = min(one.keys() ^ other.keys(), default=None) or next(
        (name for name in one if not _are_same(one[name], other[name])), None
    )
    if differing is not None:
        raise CheckpointError(
            f"'{folder}' holds two models, {SINGLE_NAME} and the shards of {INDEX_NAME}, which "
            f"differ in '{differing}'; transformers would load {SINGLE_NAME}: delete it, or the "
            "index and its shards, whichever is not meant"
        )


def _are_same(one: StoredName, other: StoredName) -> bool:
    mine, its = one.entry, other.entry
    if (mine.dtype, mine.shape, mine.size_bytes) != (its.dtype, its.shape, its.size_bytes):
        return False
    if one.path == other.path:
        return True
    return same_bytes(one.path, mine.offset, other.path, its.offset, mine.size_bytes)


def _no_weights(folder: Path) -> CheckpointError:
    if (folder / ADAPTER_CONFIG_NAME).is_file():
        return CheckpointError(
            f"'{folder}' holds a LoRA adapter without the model; give the model, and --lora "
            f"'{folder}'"
        )
    for pattern, reason in _OTHER_FORMATS:
        found = min(folder.glob(pattern), default=None)
        if found is not None:
            return CheckpointError(
                f"'{folder}' has {found.name} but no {SINGLE_NAME}: {reason}; {_CONVERT}"
            )
    return CheckpointError(
        f"'{folder}' has neither {SINGLE_NAME} nor {INDEX_NAME}{_unfinished(folder)}; expected a "
        "checkpoint in safetensors as downloaded from the hub"
    )


def _unfinished(folder: Path) -> str:
    """Words on a download that has stopped, where there is a trace of one."""
    cache = folder / ".cache" / "huggingface" / "download"
    traces = [*folder.glob("*.incomplete"), *cache.glob("**/*.incomplete")]
    return ", and a download is unfinished" if traces else ""
