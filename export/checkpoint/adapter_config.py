"""adapter_config.json of a PEFT LoRA adapter, by an allow-list of PEFT 0.21's options.

An option that is not known to leave both base weights and arithmetic alone is refused by its name,
unless its value says that it is not used.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from edge_medgemma.runtime.errors import CheckpointError

Value = TypeVar("Value", int, float)

INITIALISATIONS = (True, False, "gaussian", "orthogonal", "eva")
"""Ways to draw the pair before training that leave the base weights as they are."""

_WITHOUT_EFFECT = frozenset(
    ("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
     "inference_mode", "lora_dropout", "megatron_core", "qalora_group_size", "eva_config",
     "ensure_weight_tying")
)  # fmt: skip
"""Of training, of where the adapter came from, or of options that are refused themselves."""

_READ = frozenset(
    ("peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern",
     "init_lora_weights", "target_modules", "exclude_modules", "layers_to_transform",
     "layers_pattern", "bias")
)  # fmt: skip
_MERGE_WITH_PEFT = "merge it with PEFT's merge_and_unload and export the result"


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """What the merge of an adapter depends on."""

    rank: int
    alpha: float
    uses_rslora: bool
    """The update is divided by the root of the rank, not by the rank"""
    rank_pattern: Mapping[str, int]
    """End of a module's name, a regular expression -> its rank"""
    alpha_pattern: Mapping[str, float]
    target_modules: str | tuple[str, ...] | None
    exclude_modules: str | tuple[str, ...] | None
    layers_to_transform: tuple[int, ...] | None

    def rank_of(self, module: str) -> int:
        """The rank of a module's pair."""
        return _for_module(self.rank_pattern, module, self.rank)

    def scale_of(self, module: str) -> float:
        """What multiplies B @ A."""
        rank = self.rank_of(module)
        alpha = _for_module(self.alpha_pattern, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.uses_rslora else rank)

    def targets(self, module: str) -> bool:
        """Whether PEFT would adapt the module; it leaves a pair of any other out."""
        if self.exclude_modules is not None and _is_named(self.exclude_modules, module):
            return False
        targets = self.target_modules
        if targets is not None and targets != "all-linear" and not _is_named(targets, module):
            return False
        if self.layers_to_transform is None or isinstance(targets, str):
            return True
        layer = re.match(r".*?\.[^.]*\.(\d+)\.", module)
        return layer is not None and int(layer[1]) in self.layers_to_transform


def lora_config(config: Mapping[str, Any]) -> LoraConfig:
    """The options of an adapter_config.json.

    Raises:
        CheckpointError: another kind of adapter, an option that is not merged here, or a value that
            is none.
    """
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(
            f"the adapter is of type {kind!r}; only LORA is merged here, others with PEFT's "
            "merge_and_unload"
        )
    for option, value in config.items():
        is_used = value not in (None, False, "", "none") and value not in ([], {})
        if is_used and option not in _WITHOUT_EFFECT | _READ:
            raise CheckpointError(
                f"the adapter uses {option}, which is not merged here; {_MERGE_WITH_PEFT}"
            )
    start = config.get("init_lora_weights", True)
    if not isinstance(start, bool | str) or start not in INITIALISATIONS:
        raise CheckpointError(
            f"the adapter was initialised with {start!r} (init_lora_weights), which changes the base "
            f"weights or their use; {_MERGE_WITH_PEFT}"
        )
    if config.get("bias", "none") != "none":
        raise CheckpointError(
            f"the adapter trains biases (bias {config['bias']!r}); {_MERGE_WITH_PEFT}"
        )
    return LoraConfig(
        rank=_rank("r", config.get("r", 8)),
        alpha=_number("lora_alpha", config.get("lora_alpha", 8)),
        uses_rslora=_flag("use_rslora", config.get("use_rslora", False)),
        rank_pattern={
            key: _rank(f"rank_pattern of '{key}'", value)
            for key, value in _pattern("rank_pattern", config.get("rank_pattern")).items()
        },
        alpha_pattern={
            key: _number(f"alpha_pattern of '{key}'", value)
            for key, value in _pattern("alpha_pattern", config.get("alpha_pattern")).items()
        },
        target_modules=_modules("target_modules", config.get("target_modules")),
        exclude_modules=_modules("exclude_modules", config.get("exclude_modules")),
        layers_to_transform=_layers(config),
    )


def _for_module(pattern: Mapping[str, Value], module: str, default: Value) -> Value:
    """PEFT's override for a module: the first pattern that ends its name."""
    for key, value in pattern.items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


def _is_named(names: str | tuple[str, ...], module: str) -> bool:
    """A string is a regular expression of the whole name; of several, one ends it."""
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _rank(option: str, value: object) -> int:
    if type(value) is not int or value < 1:
        raise _wrong(option, value, "a rank of 1 or more")
    return value


def _number(option: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e6:
        raise _wrong(option, value, "a number")
    return float(value)


def _flag(option: str, value: object) -> bool:
    if value is not None and not isinstance(value, bool):
        raise _wrong(option, value, "true or false")
    return bool(value)


def _pattern(option: str, value: object) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise _wrong(option, value, "an object of patterns and values")
    for key in value or {}:
        _require_regular_expression(option, key)
    return value or {}


def _modules(option: str, value: object) -> str | tuple[str, ...] | None:
    if isinstance(value, str):
        _require_regular_expression(option, value)
        return value
    if value is None or value == []:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _wrong(option, value, "names of modules")
    return tuple(value)


def _layers(config: Mapping[str, Any]) -> tuple[int, ...] | None:
    value = config.get("layers_to_transform")
    if value is None or value == []:
        return None
    layers = value if isinstance(value, list) else [value]
    if not all(type(layer) is int for layer in layers):
        raise _wrong("layers_to_transform", value, "numbers of layers")
    if config.get("layers_pattern") not in (None, "", [], "layers", ["layers"]):
        raise _wrong("layers_pattern", config["layers_pattern"], "'layers', as in Gemma 3")
    return tuple(layers)


def _require_regular_expression(option: str, value: str) -> None:
    try:
        re.compile(value)
    except re.error as error:
        raise _wrong(option, value, f"a regular expression ({error})") from None


def _wrong(option: str, value: object, expected: str) -> CheckpointError:
    return CheckpointError(
        f"adapter_config.json says {option} {value!r}; expected {expected}, save the adapter with "
        "PEFT again"
    )
