"""Kinds of checkpoint that are accepted, each verified against transformers: the table of the docs.

PYTHONPATH=tests python -m support.checkpoint_kinds
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
from click.testing import CliRunner
from safetensors.numpy import load_file
from support.checkpoint_files import Tensors, rewrite_json, rewrite_weights, write_shards
from support.tiny_checkpoint import build_tiny_checkpoint

from edge_medgemma.runtime.cli import cli

TABLE = "language_model.model.embed_tokens.weight"


def new_name(name: str) -> str:
    """As transformers 5 calls a tensor of 4.50."""
    return f"model.{name}".replace("model.language_model.model.", "model.language_model.")


def rename(folder: Path) -> None:
    rewrite_weights(folder, lambda tensors: {new_name(n): array for n, array in tensors.items()})


def cast(dtype: type) -> Callable[[Path], None]:
    return lambda folder: rewrite_weights(
        folder, lambda tensors: {name: array.astype(dtype) for name, array in tensors.items()}
    )


def shard(folder: Path) -> None:
    write_shards(folder, load_file(folder / "model.safetensors"))


def untie(folder: Path) -> None:
    """A trained head, which config.json says."""

    def with_head(tensors: Tensors) -> Tensors:
        return tensors | {"language_model.lm_head.weight": np.roll(tensors[TABLE], 1, axis=1)}

    rewrite_weights(folder, with_head)
    rewrite_json(folder / "config.json", {"tie_word_embeddings": False})


def train_template(folder: Path) -> None:
    """The blocks that TRL marks the model's turns with."""
    path = folder / "chat_template.jinja"
    text = path.read_text(encoding="utf-8")
    path.write_text("{% generation %}{% endgeneration %}" + text, encoding="utf-8")


def name_templates(folder: Path) -> None:
    """A list of named templates in tokenizer_config.json."""
    path = folder / "chat_template.jinja"
    text = path.read_text(encoding="utf-8")
    path.unlink()
    named = [{"name": "default", "template": text}, {"name": "rag", "template": "{{ '' }}"}]
    rewrite_json(folder / "tokenizer_config.json", {"chat_template": named})


def truncate(folder: Path) -> None:
    length = {"max_length": 8, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    rewrite_json(folder / "tokenizer.json", {"truncation": length})


def process(**settings: object) -> Callable[[Path], None]:
    return lambda folder: rewrite_json(folder / "preprocessor_config.json", settings)


def adapter(**options: object) -> Callable[[Path], None]:
    """An adapter of random pairs in `folder/adapter`."""

    def save(folder: Path) -> None:
        import peft
        import torch
        from transformers import Gemma3ForConditionalGeneration

        torch.manual_seed(0)
        model = Gemma3ForConditionalGeneration.from_pretrained(folder)
        plain = {"r": 4, "lora_alpha": 10, "target_modules": ["q_proj", "down_proj"]}
        model = peft.get_peft_model(model, peft.LoraConfig(**(plain | options)))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0, 0.1)
        model.save_pretrained(folder / "adapter")

    return save


KINDS: dict[str, Callable[[Path], None]] = {
    "names of transformers 4.50": lambda folder: None,
    "names of transformers 5": rename,
    "shards beside the same `model.safetensors`": shard,
    "weights in float16": cast(np.float16),
    "weights in bfloat16": cast(ml_dtypes.bfloat16),
    "a trained head, `tie_word_embeddings` false": untie,
    "`{% generation %}` in the template": train_template,
    "a list of named templates": name_templates,
    "truncation in tokenizer.json": truncate,
    "resample nearest": process(resample=0),
    "mean and std other than a half": process(
        image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]
    ),
    "another rescale factor": process(rescale_factor=0.005),
    "`--lora`, gaussian": adapter(init_lora_weights="gaussian"),
    "`--lora`, rsLoRA with patterns": adapter(use_rslora=True, rank_pattern={"q_proj": 2}),
}


def row(kind: str, change: Callable[[Path], None], base: Path) -> str:
    """A line of the table: figures of `verify`, or the refusal of `export`."""
    with tempfile.TemporaryDirectory() as name:
        checkpoint = shutil.copytree(base, Path(name) / "checkpoint")
        change(checkpoint)
        engine = Path(name) / "engine"
        lora = checkpoint / "adapter"
        own = ["--lora", str(lora)] if lora.is_dir() else []
        done = CliRunner().invoke(
            cli, ["export", str(checkpoint), "-o", str(engine), "--precision", "fp32", *own]
        )
        if done.exit_code:
            return f"| {kind} | refused: {done.exception} | | | | |"
        done = CliRunner().invoke(
            cli, ["verify", str(engine), "--checkpoint", str(checkpoint), "--json", *own]
        )
        if not done.stdout:
            return f"| {kind} | verify: {done.exception} | | | | |"
        found = json.loads(done.stdout)
    prompts = found["prompts"]
    ids = sum(one["id_difference"] is None for one in prompts)
    pixels = max(one["pixel_difference"] or 0.0 for one in prompts)
    logits = max(
        one["logits"]["max_logit_difference"] / one["logits"]["logit_range"] for one in prompts
    )
    kl_nats = max(one["logits"]["kl_nats"] for one in prompts)
    equal = sum(one["greedy"]["equal"] for one in prompts)
    tokens = sum(one["greedy"]["tokens"] for one in prompts)
    return (
        f"| {kind} | {ids} of {len(prompts)} | {pixels:.1g} | {logits:.1e} | {kl_nats:.1e} | "
        f"{equal} of {tokens} |"
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        base = build_tiny_checkpoint(Path(name) / "tiny")
        for kind, change in KINDS.items():
            print(row(kind, change, base), flush=True)


if __name__ == "__main__":
    main()
