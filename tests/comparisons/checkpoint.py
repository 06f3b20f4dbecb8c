"""A synthetic checkpoint as the Hugging Face folder that every peer reads.

python -m comparisons.checkpoint 4b FOLDER
"""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from edge_medgemma.export.checkpoint.checkpoint import Checkpoint, Tensor
from edge_medgemma.export.checkpoint.synthetic import synthetic_checkpoint
from edge_medgemma.export.checkpoint.tokenizer_files import PIECES_KEY

STORED_PREFIXES = {
    "text.": "language_model.model.",
    "vision.": "vision_tower.vision_model.",
    "projector.": "multi_modal_projector.",
}
"""Names of the hub's files, which every runtime knows."""

SLAB_ROWS = 4096
"""Rows of a matrix that are in memory at once; a multiple of the tiles that weights are drawn in."""


def write_checkpoint(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write weights (bfloat16), configuration, tokenizer and image settings; return `folder`."""
    folder.mkdir(parents=True)
    _write_json(folder / "config.json", _config(checkpoint))
    _write_json(folder / "generation_config.json", {"eos_token_id": list(checkpoint.tokens.stop)})
    _write_json(folder / "preprocessor_config.json", _image_settings(checkpoint))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            PIECES_KEY: True,
        },
    )
    (folder / "tokenizer.json").write_bytes(checkpoint.tokenizer_json)
    (folder / "chat_template.jinja").write_text(checkpoint.chat_template, encoding="utf-8")
    with (folder / "model.safetensors").open("wb") as file:
        _write_weights(checkpoint, file)
    return folder


def _write_weights(checkpoint: Checkpoint, file: BinaryIO) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in checkpoint.tensors.items():
        begin, end = end, end + 2 * math.prod(tensor.shape)
        header[_stored_name(name)] = {
            "dtype": "BF16",
            "shape": tensor.shape,
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data to 8 bytes
    file.write(len(text).to_bytes(8, "little") + text)
    for tensor in checkpoint.tensors.values():
        file.writelines(slab.astype(ml_dtypes.bfloat16).tobytes() for slab in _slabs(tensor))


def _slabs(tensor: Tensor) -> Iterator[np.ndarray]:
    if len(tensor.shape) != 2:
        yield tensor.read(slice(None))
        return
    for row in range(0, tensor.shape[0], SLAB_ROWS):
        yield tensor.read(slice(row, row + SLAB_ROWS), slice(None))


def _stored_name(name: str) -> str:
    room, rest = name.split(".", 1)
    return STORED_PREFIXES[room + "."] + rest


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    text, vision, tokens = checkpoint.text, checkpoint.vision, checkpoint.tokens
    return {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "torch_dtype": "bfloat16",
        "boi_token_index": tokens.image_begin,
        "eoi_token_index": tokens.image_end,
        "image_token_index": tokens.image,
        "bos_token_id": tokens.bos,
        "eos_token_id": list(tokens.stop),
        "pad_token_id": tokens.pad,
        "mm_tokens_per_image": vision.tokens_per_image,
        "tie_word_embeddings": True,
        "text_config": {
            "model_type": "gemma3_text",
            "vocab_size": text.vocabulary,
            "hidden_size": text.hidden_size,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "num_key_value_heads": text.kv_heads,
            "head_dim": text.head_dim,
            "query_pre_attn_scalar": round(text.query_scale**-2),
            "sliding_window": text.sliding_window,
            "sliding_window_pattern": 6,
            "max_position_embeddings": text.max_positions,
            "rms_norm_eps": text.rms_norm_eps,
            "rope_theta": text.rope_theta_global,
            "rope_local_base_freq": text.rope_theta_local,
            "rope_scaling": {"rope_type": "linear", "factor": text.rope_factor_global},
            "hidden_activation": "gelu_pytorch_tanh",
            "tie_word_embeddings": True,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.layers,
            "num_attention_heads": vision.heads,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "layer_norm_eps": vision.layer_norm_eps,
            "hidden_act": "gelu_pytorch_tanh",
            "vision_use_head": False,
        },
    }


def _image_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    vision = checkpoint.vision
    return {
        "image_processor_type": "Gemma3ImageProcessor",
        "processor_class": "Gemma3Processor",
        "image_mean": vision.image_mean,
        "image_std": vision.image_std,
        "image_seq_length": vision.tokens_per_image,
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"height": vision.image_size, "width": vision.image_size},
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_checkpoint(synthetic_checkpoint(sys.argv[1]), Path(sys.argv[2]))
