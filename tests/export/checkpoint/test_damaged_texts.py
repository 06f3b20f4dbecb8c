"""A value of the wrong kind anywhere in a checkpoint's small files is read or refused, never a crash."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.processor_folder import (
    TOKENIZER_CONFIG,
    prompt_builder,
    write_json,
    write_processor_folder,
)
from support.tiny_checkpoint import CONFIG, PROCESSOR, TINY_TOKENS

from edge_medgemma.export.checkpoint.config import vision_spec
from edge_medgemma.export.checkpoint.processor import processor_config
from edge_medgemma.export.checkpoint.synthetic_tokenizer import CHAT_TEMPLATE, tokenizer_json
from edge_medgemma.export.checkpoint.tokenizer_files import read_tokenizer
from edge_medgemma.runtime.errors import CheckpointError, EngineError
from edge_medgemma.runtime.generation.prompt_proof import prove_prompt

TOKENIZER = json.loads(tokenizer_json(TINY_TOKENS))
ADDED = {token["content"]: token["id"] for token in TOKENIZER["added_tokens"]}
FILES: dict[str, dict[str, Any]] = {
    "preprocessor_config.json": {**PROCESSOR, "do_pan_and_scan": None, "default_to_square": True},
    "processor_config.json": {
        "processor_class": "Gemma3Processor",
        "image_seq_length": 16,
        "image_processor": PROCESSOR,
        "chat_template": CHAT_TEMPLATE,
    },
    "tokenizer_config.json": {
        **TOKENIZER_CONFIG,
        "added_tokens_decoder": {
            str(token["id"]): {key: token[key] for key in token if key != "id"}
            for token in TOKENIZER["added_tokens"]
        },
        "extra_special_tokens": ["<unused1>"],
        "additional_special_tokens": ["<unused1>"],
        "chat_template": CHAT_TEMPLATE,
        "split_special_tokens": False,
        "fast_tokenizer_files": [],
    },
    "special_tokens_map.json": {"bos_token": "<bos>", "boi_token": {"content": "<start_of_image>"}},
    "added_tokens.json": ADDED,
    "generation_config.json": {"eos_token_id": [1, 106], "pad_token_id": 0},
    "chat_template.json": {"chat_template": CHAT_TEMPLATE},
    "tokenizer.json": TOKENIZER,
}
WRONG: list[Any] = [None, True, -1, 2**70, 1.5, "x", "\ud800", [], [None], [{}], {}, {"a": None}]


def _places(content: dict[str, Any], depth: int = 2) -> Iterator[list[Any]]:
    """Paths to values: of large objects and of lists the first entry alone."""
    for key, value in list(content.items())[: None if len(content) < 40 else 1]:
        yield [key]
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, dict) and depth:
            way = [key, 0] if isinstance(value, list) else [key]
            yield from ([*way, *rest] for rest in _places(inner, depth - 1))


def _damaged(content: dict[str, Any], place: list[Any], value: object) -> dict[str, Any]:
    damaged = copy.deepcopy(content)
    inner: Any = damaged
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return damaged


@pytest.mark.parametrize("name", FILES)
def test_no_value_of_the_wrong_kind_ends_in_a_traceback(tmp_path: Path, name: str) -> None:
    folder = write_processor_folder(tmp_path / "checkpoint")
    read = 0
    for value in [[], "x", 7, None]:
        write_json(folder / name, value)  # type: ignore[arg-type]
        read += _is_read(folder, f"{name} is {value!r}")
    assert read == 0 or name in ("special_tokens_map.json", "added_tokens.json")
    for place in _places(FILES[name]):
        for value in WRONG:
            write_json(folder / name, _damaged(FILES[name], place, value))
            _is_read(folder, f"{place} is {value!r}")


def _is_read(folder: Path, case: str) -> bool:
    try:
        vision_spec(CONFIG, processor_config(folder))
        read_tokenizer(folder)
        prove_prompt(prompt_builder(folder), 768, in_one_piece=True)
    except (CheckpointError, EngineError) as error:
        assert "\n" not in str(error) and len(str(error)) < 600, case
        return False
    except BaseException as error:
        raise AssertionError(f"{case}: {type(error).__name__}: {error}") from error
    return True
