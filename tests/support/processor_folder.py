"""A checkpoint folder without weights, read by transformers' AutoProcessor and by the exporter."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support.tiny_checkpoint import CONFIG, PROCESSOR, TINY_TOKENS

from edge_medgemma.export.checkpoint.chat_template import read_chat_template
from edge_medgemma.export.checkpoint.checkpoint import read_json
from edge_medgemma.export.checkpoint.processor import processor_config
from edge_medgemma.export.checkpoint.synthetic_tokenizer import CHAT_TEMPLATE, tokenizer_json
from edge_medgemma.export.checkpoint.tokenizer_files import read_tokenizer
from edge_medgemma.export.checkpoint.tokens import token_spec
from edge_medgemma.runtime.generation.prompt import PromptBuilder, content_of, scan_texts
from edge_medgemma.runtime.generation.tokenizer import Tokenizer

VOCABULARY = CONFIG["text_config"]["vocab_size"]
TOKENS_PER_IMAGE = CONFIG["mm_tokens_per_image"]
TOKENIZER_CONFIG = {
    "tokenizer_class": "GemmaTokenizer",
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<unk>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}
INSTRUCTION = "Review these 2 slices (of a head), please: \"axial\" & 'thin' <5 mm.\n\nNo rush."
QUESTION = "Is it normal? SAY yes or no."


def write_processor_folder(folder: Path, template: str | None = CHAT_TEMPLATE) -> Path:
    """All files of the tiny checkpoint but the weights, in the layout of a Gemma 3 of the hub."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(tokenizer_json(TINY_TOKENS))
    for name, content in {
        "config.json": CONFIG,
        "preprocessor_config.json": PROCESSOR,
        "processor_config.json": {
            "processor_class": "Gemma3Processor",
            "image_seq_length": TOKENS_PER_IMAGE,
        },
        "tokenizer_config.json": TOKENIZER_CONFIG,
    }.items():
        write_json(folder / name, content)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_json(path: Path, **changes: object) -> None:
    """Set keys of a JSON object, which starts empty where there is no such file."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_json(path, content | changes)


def prompt_builder(folder: Path) -> PromptBuilder:
    """The runtime's builder of what the exporter reads."""
    tokenizer = read_tokenizer(folder)
    processor_config(folder)
    generation = read_json(folder / "generation_config.json", {})
    tokens = token_spec(read_json(folder / "config.json"), generation, tokenizer, VOCABULARY)
    return PromptBuilder(
        Tokenizer.of_json(tokenizer.content, tokens),
        tokens,
        TOKENS_PER_IMAGE,
        read_chat_template(folder),
    )


def our_ids(folder: Path, slices: int) -> list[int]:
    """Token ids of the runtime's prompt; of the question alone without slices."""
    builder = prompt_builder(folder)
    if not slices:
        return list(builder.text(QUESTION))
    chunks = builder.prefix(INSTRUCTION, slices)
    return [*(i for chunk in chunks for i in chunk.ids), *builder.question(QUESTION)]


def processor_ids(folder: Path, slices: int) -> list[int]:
    """Token ids that transformers' own processor of the folder makes of the same message."""
    import numpy as np
    from transformers import AutoProcessor

    texts: Sequence[str] = scan_texts(INSTRUCTION, slices, QUESTION) if slices else [QUESTION]
    image = np.zeros((20, 20, 3), np.uint8)
    content = [
        {"type": "image", "image": image} if item["type"] == "image" else dict(item)
        for item in content_of(texts)
    ]
    processor = AutoProcessor.from_pretrained(folder)
    (ids,) = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, add_generation_prompt=True
    )
    return list(ids)
