"""A Gemma 3 checkpoint as the two GGUF files of llama.cpp: language model and vision tower.

Names, shapes and shifts follow convert_hf_to_gguf.py (conversion/gemma.py in llama.cpp's sources).
That script wants the gated tokenizer.model; here the vocabulary of tokenizer.json is written as it
is, its ids being all that a peer needs: prompts come as ids.
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

PRECISIONS = {"BF16": "bf16", "F32": "f32"}
"""What a checkpoint may be stored in, and llama.cpp's word for it."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of the checkpoint, bfloat16 or float32 on the disk."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: str
    """One of PRECISIONS."""

    def read(self) -> np.ndarray:
        """Values as float32."""
        if self.dtype == "F32":
            return np.memmap(self.path, np.float32, "r", offset=self.offset, shape=self.shape)
        bits = np.memmap(self.path, np.uint16, "r", offset=self.offset, shape=self.shape)
        return (bits.astype(np.uint32) << 16).view(np.float32)

    def bits(self) -> np.ndarray:
        """bfloat16 as it is stored, its bytes along the last axis."""
        shape = (*self.shape[:-1], 2 * self.shape[-1])
        return np.memmap(self.path, np.uint8, "r", offset=self.offset, shape=shape)


@dataclass(frozen=True, slots=True)
class Plan:
    """One tensor of the file: its name, how it is stored, and its data when asked."""

    name: str
    shape: tuple[int, ...]
    kind: gguf.GGMLQuantizationType
    data: Callable[[], np.ndarray]


def write_language_model(checkpoint: Path, target: Path) -> None:
    """Write the language model with matrices as they are stored, and the vocabulary."""
    config = _json(checkpoint / "config.json")
    text = config["text_config"]
    writer = gguf.GGUFWriter(str(target), "gemma3")
    writer.add_name("peers")
    is_float32 = stored_precision(checkpoint) == "f32"
    kinds = gguf.LlamaFileType
    writer.add_file_type(kinds.ALL_F32 if is_float32 else kinds.MOSTLY_BF16)
    writer.add_context_length(text["max_position_embeddings"])
    writer.add_embedding_length(text["hidden_size"])
    writer.add_block_count(text["num_hidden_layers"])
    writer.add_feed_forward_length(text["intermediate_size"])
    writer.add_head_count(text["num_attention_heads"])
    writer.add_head_count_kv(text["num_key_value_heads"])
    writer.add_key_length(text["head_dim"])
    writer.add_value_length(text["head_dim"])
    writer.add_layer_norm_rms_eps(text["rms_norm_eps"])
    writer.add_sliding_window(text["sliding_window"])
    theta, factor = _rotary(text)
    writer.add_rope_freq_base(theta)
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(factor)
    _write_vocabulary(writer, checkpoint, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, text["num_hidden_layers"])
    plans = []
    for name, stored in _tensors(checkpoint).items():
        if "language_model." not in name:
            continue
        # conversion/gemma.py knows the older names of the hub's files
        plain = "model." + name.split("language_model.")[1].removeprefix("model.")
        plans.append(_language_plan(_mapped(names, plain), stored))
    _write(writer, plans)


def stored_precision(checkpoint: Path) -> str:
    """What the checkpoint's tensors are stored in, `bf16` or `f32`.

    Raises:
        ValueError: in both, or in something else.
    """
    found = {PRECISIONS[stored.dtype] for stored in _tensors(checkpoint).values()}
    if len(found) != 1:
        raise ValueError(f"'{checkpoint}' has tensors in {sorted(found)}; expected one precision")
    return found.pop()


def write_vision(checkpoint: Path, target: Path) -> None:
    """Write vision tower and projector, matrices in float16."""
    config = _json(checkpoint / "config.json")
    vision = config["vision_config"]
    settings = _json(checkpoint / "preprocessor_config.json")
    writer = gguf.GGUFWriter(str(target), "clip")
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_name("peers")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(gguf.VisionProjectorType.GEMMA3)
    writer.add_vision_projection_dim(config["text_config"]["hidden_size"])
    writer.add_vision_image_size(vision["image_size"])
    writer.add_vision_patch_size(vision["patch_size"])
    writer.add_vision_embedding_length(vision["hidden_size"])
    writer.add_vision_feed_forward_length(vision["intermediate_size"])
    writer.add_vision_block_count(vision["num_hidden_layers"])
    writer.add_vision_head_count(vision["num_attention_heads"])
    writer.add_vision_attention_layernorm_eps(vision["layer_norm_eps"])
    writer.add_vision_use_gelu(True)
    writer.add_vision_image_mean(list(settings["image_mean"]))
    writer.add_vision_image_std(list(settings["image_std"]))
    patches = vision["image_size"] // vision["patch_size"]
    writer.add_vision_projector_scale_factor(patches // math.isqrt(config["mm_tokens_per_image"]))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, vision["num_hidden_layers"])
    plans = []
    for name, stored in _tensors(checkpoint).items():
        if "vision_tower." in name or "multi_modal_projector." in name:
            plans.append(_vision_plan(names, name, stored))
    _write(writer, plans)


def _language_plan(name: str, stored: Stored) -> Plan:
    if len(stored.shape) > 1 and stored.dtype == "F32":
        return Plan(name, stored.shape, gguf.GGMLQuantizationType.F32, stored.read)
    if len(stored.shape) > 1:
        return Plan(name, stored.shape, gguf.GGMLQuantizationType.BF16, stored.bits)
    # Gemma's norms multiply by 1 + weight, llama.cpp's by weight
    return Plan(name, stored.shape, gguf.GGMLQuantizationType.F32, lambda: stored.read() + 1)


def _vision_plan(names: gguf.TensorNameMap, name: str, stored: Stored) -> Plan:
    plain = name.removeprefix("model.")
    if plain.startswith("vision_tower.") and "vision_model." not in plain:
        plain = plain.replace("vision_tower.", "vision_tower.vision_model.", 1)
    plain = plain.replace("_weight", ".weight")
    mapped = _mapped(names, plain)
    if "soft_emb_norm" in plain:
        return Plan(mapped, stored.shape, gguf.GGMLQuantizationType.F32, lambda: stored.read() + 1)
    if len(stored.shape) == 1 or ".embeddings." in plain:
        return Plan(mapped, stored.shape, gguf.GGMLQuantizationType.F32, stored.read)
    half = gguf.GGMLQuantizationType.F16
    return Plan(mapped, stored.shape, half, lambda: stored.read().astype(np.float16))


def _mapped(names: gguf.TensorNameMap, name: str) -> str:
    mapped = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if mapped is None:
        raise ValueError(f"llama.cpp has no tensor for '{name}'")
    return mapped


def _write(writer: gguf.GGUFWriter, plans: Iterable[Plan]) -> None:
    """Announce every tensor, then write their data one by one."""
    plans = list(plans)
    widths = {
        gguf.GGMLQuantizationType.F32: (np.dtype(np.float32), 4),
        gguf.GGMLQuantizationType.F16: (np.dtype(np.float16), 2),
    }
    for plan in plans:
        count = math.prod(plan.shape)
        if plan.kind in widths:
            dtype, width = widths[plan.kind]
            writer.add_tensor_info(plan.name, plan.shape, dtype, count * width)
        else:
            shape = (*plan.shape[:-1], 2 * plan.shape[-1])
            byte = np.dtype(np.uint8)
            writer.add_tensor_info(plan.name, shape, byte, count * 2, raw_dtype=plan.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for plan in plans:
        writer.write_tensor_data(np.ascontiguousarray(plan.data()))
    writer.close()


def _write_vocabulary(writer: gguf.GGUFWriter, checkpoint: Path, config: dict[str, Any]) -> None:
    """Every id of the embedding gets a token; those that tokenizer.json leaves out are unused."""
    tokenizer = _json(checkpoint / "tokenizer.json")
    special = {entry["id"] for entry in tokenizer["added_tokens"]}
    spelling = {index: token for token, index in tokenizer["model"]["vocab"].items()}
    spelling |= {entry["id"]: entry["content"] for entry in tokenizer["added_tokens"]}
    tokens, kinds = [], []
    for index in range(config["text_config"]["vocab_size"]):
        token = spelling.get(index)
        if token is None:
            kind, token = gguf.TokenType.UNUSED, f"[unused {index}]"
        elif index in special:
            kind = gguf.TokenType.CONTROL
        elif token.startswith("<0x"):
            kind = gguf.TokenType.BYTE
        else:
            kind = gguf.TokenType.NORMAL
        tokens.append(token)
        kinds.append(kind)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(index) for index in range(len(tokens))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"][0])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_space_prefix(False)


def _rotary(text: dict[str, Any]) -> tuple[float, float]:
    """Base and linear factor of the global layers; local layers have llama.cpp's 1e4 and 1."""
    if "rope_parameters" in text:
        full = text["rope_parameters"]["full_attention"]
        return full["rope_theta"], full.get("factor", 1.0)
    return text["rope_theta"], text["rope_scaling"]["factor"]


def _tensors(checkpoint: Path) -> dict[str, Stored]:
    tensors = {}
    for path in sorted(checkpoint.glob("*.safetensors")):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            if entry["dtype"] not in PRECISIONS:
                raise ValueError(
                    f"'{name}' is {entry['dtype']}; expected {' or '.join(PRECISIONS)}"
                )
            offset = 8 + length + entry["data_offsets"][0]
            tensors[name] = Stored(path, offset, tuple(entry["shape"]), entry["dtype"])
    return tensors


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
