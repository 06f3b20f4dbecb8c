"""Ids with a meaning are the tokenizer's, and meet those of the model."""

import json
from pathlib import Path

import pytest
from support.processor_folder import (
    VOCABULARY,
    edit_json,
    our_ids,
    processor_ids,
    write_json,
    write_processor_folder,
)
from support.tiny_checkpoint import CONFIG, TINY_TOKENS

from edge_medgemma.export.checkpoint.chat_template import require_working_prompt
from edge_medgemma.export.checkpoint.checkpoint import read_json
from edge_medgemma.export.checkpoint.synthetic_tokenizer import CHAT_TEMPLATE, tokenizer_json
from edge_medgemma.export.checkpoint.tokenizer_files import TokenizerFiles, read_tokenizer
from edge_medgemma.export.checkpoint.tokens import token_spec
from edge_medgemma.runtime.errors import CheckpointError
from edge_medgemma.runtime.model_shape import TokenSpec

NAMES = {
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}
IDS = {
    "<pad>": 0,
    "<eos>": 1,
    "<bos>": 2,
    "<unused94>": 100,
    "<unused95>": 101,
    "<end_of_turn>": 106,
    "<start_of_image>": 760,
    "<end_of_image>": 761,
    "<image_soft_token>": 762,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_processor_folder(tmp_path / "checkpoint")


def spec(
    config: dict[str, object] | None = None,
    generation: dict[str, object] | None = None,
    ids: dict[str, int] | None = None,
    rows: int = VOCABULARY,
) -> TokenSpec:
    tokenizer = TokenizerFiles(b"", IDS if ids is None else ids, frozenset(), NAMES)
    return token_spec(CONFIG | (config or {}), generation or {}, tokenizer, rows)


def opened(folder: Path) -> TokenSpec:
    config, generation = (
        read_json(folder / name, {}) for name in ("config.json", "generation_config.json")
    )
    return token_spec(config, generation, read_tokenizer(folder), VOCABULARY)


def test_ids_are_the_tokenizers() -> None:
    found = spec({"bos_token_id": 77, "boi_token_index": 5, "eoi_token_index": 6})
    assert (found.bos, found.image_begin, found.image_end, found.eos) == (2, 760, 761, 1)
    assert (found.thought_begin, found.thought_end) == (100, 101)
    plain = {name: one for name, one in IDS.items() if "unused" not in name}
    assert spec(ids=plain).thought_begin is None


@pytest.mark.parametrize(
    ("config", "generation", "stop"),
    [
        ([1, 106], None, (1, 106)),
        ([1, 106], 1, (1, 106)),
        ([1], [106], (106,)),
        (None, [1, 106, 7], (1, 106, 7)),
        (1, None, (1, 106)),
        (None, None, (106,)),
        ([1, 106, 1], None, (1, 106)),
    ],
)
def test_the_generation_config_says_what_ends_an_answer_and_so_does_the_end_of_a_turn(
    config: object, generation: object, stop: tuple[int, ...]
) -> None:
    assert spec({"eos_token_id": config}, {"eos_token_id": generation}).stop == stop


@pytest.mark.parametrize("wrong", [[], "1", [1, "106"], -1, {"a": 1}, True, [None], 1.5])
def test_what_is_no_list_of_ids_is_refused(wrong: object) -> None:
    with pytest.raises(CheckpointError, match="eos_token_id"):
        spec({"eos_token_id": wrong})


@pytest.mark.parametrize("name", ["image_token_index", "image_token_id"])
def test_the_model_must_find_the_images_that_the_processor_writes(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"{name} 99 and the tokenizer writes 762"):
        spec({name: 99})


def test_every_id_has_an_embedding() -> None:
    with pytest.raises(CheckpointError, match="token 762 with a meaning and the model 762"):
        spec(rows=762)
    with pytest.raises(CheckpointError, match="token 900 that texts can hold and the model 768"):
        spec(ids={**IDS, "word": 900})
    assert spec(ids={**IDS, "<unused9999>": 900}).image == 762
    with pytest.raises(CheckpointError, match="eoi_token is '<end_of_image>', which"):
        spec(ids={name: one for name, one in IDS.items() if name != "<end_of_image>"})


def test_other_spellings_are_read_as_the_processor_reads_them(folder: Path) -> None:
    """A grown tokenizer with images of other names: in tokenizer_config.json, as objects, as extra."""
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    for old, new in {"start_of_image": "picture", "end_of_image": "/picture"}.items():
        text = text.replace(f"<{old}>", f"<{new}>")
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    template = CHAT_TEMPLATE.replace("<start_of_image>", "<picture>")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    edit_json(
        folder / "tokenizer_config.json",
        boi_token="<picture>",
        eoi_token={"__type": "AddedToken", "content": "</picture>", "special": True},
        extra_special_tokens={"image_token": "<image_soft_token>"},
    )
    assert opened(folder).image_begin == TINY_TOKENS.image_begin
    assert our_ids(folder, 2) == processor_ids(folder, 2)


def test_a_special_tokens_map_wins_only_over_a_config_without_its_own_list(folder: Path) -> None:
    write_json(folder / "special_tokens_map.json", {"bos_token": {"content": "<unused1>"}})
    from transformers import AutoTokenizer

    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    decoder = {str(one["id"]): {k: v for k, v in one.items() if k != "id"} for one in added}
    for changes in ({}, {"added_tokens_decoder": decoder}):
        edit_json(folder / "tokenizer_config.json", **changes)
        assert opened(folder).bos == AutoTokenizer.from_pretrained(folder).bos_token_id


def test_a_cut_vocabulary_with_new_ids_works(tmp_path: Path) -> None:
    folder = write_processor_folder(tmp_path / "cut")
    tokens = TokenSpec(2, 0, (1, 106), 652, 650, 651, None, None)
    (folder / "tokenizer.json").write_bytes(tokenizer_json(tokens))
    edit_json(folder / "config.json", image_token_index=652, boi_token_index=0, eoi_token_index=0)
    assert opened(folder).image == 652
    assert our_ids(folder, 2) == processor_ids(folder, 2)


@pytest.mark.parametrize("direction", ["Left", "Right"])
def test_truncation_and_padding_of_a_tokenizer_are_off(folder: Path, direction: str) -> None:
    expected = our_ids(folder, 2)
    truncation = {"direction": direction, "max_length": 20, "strategy": "LongestFirst", "stride": 0}
    padding = {
        "strategy": {"Fixed": 512},
        "direction": direction,
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<pad>",
    }
    edit_json(folder / "tokenizer.json", truncation=truncation, padding=padding)
    kept = json.loads(read_tokenizer(folder).content)
    assert kept["truncation"] is None and kept["padding"] is None
    assert our_ids(folder, 2) == expected
    require_working_prompt(
        CHAT_TEMPLATE,
        read_tokenizer(folder),
        opened(folder),
        tokens_per_image=16,
        vocabulary=VOCABULARY,
    )


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer_class": "LlamaTokenizer"}, "tokenizer_class 'LlamaTokenizer'"),
        ({"tokenizer_class": ["GemmaTokenizer"]}, "tokenizer_class"),
        ({"split_special_tokens": True}, "split_special_tokens"),
        ({"fast_tokenizer_files": ["tokenizer.4.0.json"]}, "fast_tokenizer_files"),
        ({"boi_token": "<img>"}, "boi_token is '<img>', which"),
        ({"bos_token": None}, "bos_token None"),
        ({"image_token": 7}, "image_token 7"),
        ({"additional_special_tokens": ["<lesion>"]}, "'<lesion>'"),
        ({"extra_special_tokens": "<lesion>"}, "extra_special_tokens"),
        ({"added_tokens_decoder": {"762": {"content": "<image_soft_token>"}}}, "leaves .* out"),
        ({"added_tokens_decoder": None}, "added_tokens_decoder"),
    ],
)
def test_a_tokenizer_that_transformers_would_read_otherwise_is_refused(
    folder: Path, changes: dict[str, object], message: str
) -> None:
    edit_json(folder / "tokenizer_config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        opened(folder)


def test_parts_that_gemmas_class_ignores_are_gemmas_or_the_class_is_another(folder: Path) -> None:
    edit_json(folder / "tokenizer.json", pre_tokenizer=BYTE_LEVEL)
    with pytest.raises(CheckpointError, match="pre_tokenizer that is not Gemma's"):
        read_tokenizer(folder)
    edit_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    read_tokenizer(folder)
    assert our_ids(folder, 2) == processor_ids(folder, 2)


def test_added_tokens_of_an_old_file_must_be_the_tokenizers(folder: Path) -> None:
    write_json(folder / "added_tokens.json", {"<image_soft_token>": 762})
    assert opened(folder).image == 762
    write_json(folder / "added_tokens.json", {"<image_soft_token>": 763})
    with pytest.raises(CheckpointError, match="'<image_soft_token>' of id 763"):
        opened(folder)
