"""A tiny random MedGemma checkpoint and the committed engine of it, written without torch.

`make tiny-engine` writes tests/data/tiny_engine again after a change of the exporter.
"""

import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from edge_medgemma.export.checkpoint.config import text_spec, vision_spec
from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.checkpoint.synthetic_tokenizer import CHAT_TEMPLATE, tokenizer_json
from edge_medgemma.export.checkpoint.tensor_names import EMBEDDING, expected_shapes
from edge_medgemma.export.engine import export_engine
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.model_shape import TokenSpec

TINY_ENGINE = Path(__file__).resolve().parents[1] / "data" / "tiny_engine"
"""Engine directory in float32 that tests of the runtime use; a test holds it to the exporter."""

HUB_PREFIXES = {
    "text.": "language_model.model.",
    "vision.": "vision_tower.vision_model.",
    "projector.": "multi_modal_projector.",
}
"""Beginning of a canonical tensor name -> its beginning in the files of the hub."""

TINY_TOKENS = TokenSpec(
    bos=2,
    pad=0,
    stop=(1, 106),
    image=762,
    image_begin=760,
    image_end=761,
    thought_begin=100,
    thought_end=101,
)
CONFIG: dict[str, Any] = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "dtype": "float32",
    "text_config": {
        "model_type": "gemma3_text",
        "vocab_size": 768,
        "hidden_size": 96,
        "intermediate_size": 64,
        "num_hidden_layers": 7,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "query_pre_attn_scalar": 24,
        "sliding_window": 24,
        "layer_types": [*["sliding_attention"] * 5, "full_attention", "sliding_attention"],
        "max_position_embeddings": 4096,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 112,
        "patch_size": 14,
        "vision_use_head": False,
    },
    "mm_tokens_per_image": 16,
    "boi_token_index": TINY_TOKENS.image_begin,
    "eoi_token_index": TINY_TOKENS.image_end,
    "image_token_index": TINY_TOKENS.image,
    "bos_token_id": TINY_TOKENS.bos,
    "eos_token_id": list(TINY_TOKENS.stop),
    "pad_token_id": TINY_TOKENS.pad,
}
"""Layer 5 is global, and no two sizes that a mistake could swap are equal. Blocks of 32 divide all."""
PROCESSOR = {
    "image_processor_type": "Gemma3ImageProcessor",
    "processor_class": "Gemma3Processor",
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_seq_length": 16,
    "resample": 2,
    "rescale_factor": 1 / 255,
    "size": {"height": 112, "width": 112},
}
TOKENIZER = {
    "tokenizer_class": "GemmaTokenizerFast",
    "processor_class": "Gemma3Processor",
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}
"""tokenizer_config.json: without its last three entries transformers has no processor."""


def build_tiny_checkpoint(folder: Path) -> Path:
    """Write a Gemma3ForConditionalGeneration with random weights to `folder` and return it.

    Norms, biases and the projector, which transformers would leave at zero, are random too, or
    comparing against it would prove nothing. Weights are float32 that bfloat16 holds exactly, so
    that a repository stores them in half their bytes.
    """
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    text = text_spec(CONFIG, np.dtype(np.float32))
    tensors = {
        hub_name(name): random_weight(name, shape, generator)
        for name, shape in expected_shapes(text, vision_spec(CONFIG, PROCESSOR)).items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR, indent=2))
    (folder / "processor_config.json").write_text(
        json.dumps({"processor_class": "Gemma3Processor", "image_seq_length": 16})
    )
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER, indent=2))
    (folder / "tokenizer.json").write_bytes(tokenizer_json(TINY_TOKENS))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return folder


def export_tiny_engine(checkpoint: Path, destination: Path) -> Manifest:
    """Write the float32 engine of `build_tiny_checkpoint`'s folder."""
    opened = open_checkpoint(str(checkpoint))
    return export_engine(opened, destination, precision="fp32", block_size=32)


def hub_name(name: str) -> str:
    prefix = next(prefix for prefix in HUB_PREFIXES if name.startswith(prefix))
    return HUB_PREFIXES[prefix] + name.removeprefix(prefix)


def random_weight(
    name: str, shape: tuple[int, ...], generator: np.random.Generator
) -> NDArray[np.float32]:
    """Normal weights that keep activations near 1, float32 with the low 16 bits zero."""
    centre = 0.0
    if len(shape) == 1:
        is_layer_norm = name.startswith("vision.") and "norm" in name and name.endswith(".weight")
        centre, spread = float(is_layer_norm), 0.2
    elif name == EMBEDDING:
        spread = 0.08  # any larger, and the tied head would only echo the last token
    elif name.endswith("position_embedding.weight"):
        spread = 0.3
    elif name.endswith("mm_input_projection_weight"):
        spread = 1.0 / math.sqrt(shape[0])
    else:
        spread = 1.0 / math.sqrt(math.prod(shape[1:]))
    values = generator.normal(centre, spread, shape).astype(ml_dtypes.bfloat16)
    return values.astype(np.float32)


def main() -> None:
    """Replace the committed engine."""
    shutil.rmtree(TINY_ENGINE, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        export_tiny_engine(build_tiny_checkpoint(Path(folder) / "tiny"), TINY_ENGINE)


if __name__ == "__main__":
    main()
