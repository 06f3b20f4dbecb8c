"""The tokenizer of a checkpoint: tokenizer.json and the files by which transformers changes it.

What `AutoTokenizer` of transformers (5.24) would make of the same files is either what tokenizer.json
says by itself, or refused.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_medgemma.export.checkpoint.checkpoint import read_json
from edge_medgemma.runtime.errors import CheckpointError

TOKENIZER_NAME = "tokenizer.json"
CONFIG_NAME = "tokenizer_config.json"
PIECES_KEY = "edge_medgemma_pieces"
"""True in a tokenizer_config.json that this project wrote beside a network that it trained."""
REBUILT_CLASSES = (None, "GemmaTokenizer", "GemmaTokenizerFast")
"""transformers takes the words and merges of tokenizer.json and the rest from its own class."""
FILE_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""transformers takes tokenizer.json as it is."""

REBUILT_PARTS: Mapping[str, tuple[object, ...]] = {
    "normalizer": ({"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},),
    # No space is left behind the normalizer, so that this one never splits.
    "pre_tokenizer": (
        None,
        {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
    ),
}
REBUILT_MODEL: Mapping[str, tuple[object, ...]] = {
    "type": ("BPE",),
    "dropout": (None,),
    "byte_fallback": (True,),
    "ignore_merges": (None, False),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
}
"""Part of tokenizer.json -> what a rebuilt one has, in every spelling of it; None stands for absent."""

GEMMA_NAMES = {
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
IMAGE_NAMES = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """A tokenizer, and what its checkpoint calls which token."""

    content: bytes
    """tokenizer.json as an engine keeps it: what cuts or lengthens texts is off."""
    ids: Mapping[str, int]
    """Id of every token by its spelling"""
    control_ids: frozenset[int]
    """Ids of special tokens, which no text becomes"""
    names: Mapping[str, str]
    """bos_token and the like -> spelling"""
    in_one_piece: bool = True
    """See `prove_prompt`; the checkpoints of this project say that they are not"""


def read_tokenizer(folder: Path) -> TokenizerFiles:
    """The tokenizer of a checkpoint folder.

    Raises:
        CheckpointError: no or a damaged tokenizer, or transformers would read another one.
    """
    path = folder / TOKENIZER_NAME
    if not path.is_file():
        raise CheckpointError(
            f"'{folder}' has no {TOKENIZER_NAME}; add the one of the original model"
        )
    tokenizer = read_json(path)
    content = path.read_bytes()
    if tokenizer.get("truncation") is not None or tokenizer.get("padding") is not None:
        open_ended = {**tokenizer, "truncation": None, "padding": None}
        content = json.dumps(open_ended, ensure_ascii=False).encode()
    config = read_json(folder / CONFIG_NAME, {})
    is_rebuilt = _is_rebuilt(config)
    if is_rebuilt:
        _require_parts(tokenizer, REBUILT_PARTS)
        _require_parts(_object(tokenizer, "model", TOKENIZER_NAME), REBUILT_MODEL, "model.")
    added = list(_added_tokens(tokenizer))
    vocabulary = _object(_object(tokenizer, "model", TOKENIZER_NAME), "vocab", TOKENIZER_NAME)
    ids = {**vocabulary, **{token["content"]: token["id"] for token in added}}
    if not all(type(one) is int and 0 <= one < 2**24 for one in ids.values()):
        raise CheckpointError(f"{TOKENIZER_NAME} has ids that are no whole numbers; {_AGAIN}")
    special_map = read_json(folder / "special_tokens_map.json", {})
    has_own_list = "added_tokens_decoder" in config
    names = _names(config, {} if has_own_list else special_map, is_rebuilt)
    _require_added(folder, config, {token["content"]: token for token in added}, ids)
    return TokenizerFiles(
        content=content,
        ids=ids,
        control_ids=frozenset(one["id"] for one in added if one.get("special") is True),
        names=names,
        in_one_piece=config.get(PIECES_KEY) is not True,
    )


_AGAIN = "take the one of the original model"


def _is_rebuilt(config: Mapping[str, Any]) -> bool:
    """Whether transformers makes the tokenizer anew by its own class."""
    name = config.get("tokenizer_class")
    if name not in (*REBUILT_CLASSES, *FILE_CLASSES):
        raise CheckpointError(
            f"{CONFIG_NAME} says tokenizer_class {name!r}; expected 'GemmaTokenizer', or "
            "'PreTrainedTokenizerFast' for a tokenizer.json that is not Gemma's"
        )
    if config.get("split_special_tokens") not in (None, False):
        raise CheckpointError(
            f"{CONFIG_NAME} switches split_special_tokens on; the marks of turns and images would "
            "be read as letters"
        )
    if config.get("fast_tokenizer_files"):
        raise CheckpointError(
            f"{CONFIG_NAME} names fast_tokenizer_files; expected one {TOKENIZER_NAME}"
        )
    return name in REBUILT_CLASSES


def _require_parts(
    found: Mapping[str, Any], expected: Mapping[str, tuple[object, ...]], where: str = ""
) -> None:
    for part, choices in expected.items():
        if found.get(part) not in choices:
            raise CheckpointError(
                f"{TOKENIZER_NAME} has a {where}{part} that is not Gemma's, and transformers would "
                f"read it as Gemma's; {_AGAIN}, or say tokenizer_class "
                f"'PreTrainedTokenizerFast' in {CONFIG_NAME}"
            )


def _added_tokens(tokenizer: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    added = tokenizer.get("added_tokens")
    if not isinstance(added, list):
        raise CheckpointError(f"{TOKENIZER_NAME} has no list of added_tokens; {_AGAIN}")
    for token in added:
        is_token = isinstance(token, dict) and isinstance(token.get("content"), str)
        if not is_token or type(token.get("id")) is not int:
            raise CheckpointError(
                f"{TOKENIZER_NAME} has an added token {str(token)[:80]!r} without id or content; "
                f"{_AGAIN}"
            )
        yield token


def _names(
    config: Mapping[str, Any], special_map: Mapping[str, Any], is_rebuilt: bool
) -> dict[str, str]:
    """What the checkpoint calls which token; a checkpoint without names means Gemma's."""
    extra = config.get("extra_special_tokens")
    stated = {
        **{name: value for name, value in config.items() if name.endswith("_token")},
        **(extra if isinstance(extra, dict) else {}),
        **{name: value for name, value in special_map.items() if name.endswith("_token")},
    }
    names = {**IMAGE_NAMES, **(GEMMA_NAMES if is_rebuilt else {})}
    for name, value in stated.items():
        spelling = value.get("content") if isinstance(value, dict) else value
        if isinstance(spelling, bool):
            continue  # add_bos_token and add_eos_token: tokenizer.json says what is put around
        if not isinstance(spelling, str):
            raise CheckpointError(f"{CONFIG_NAME} says {name} {spelling!r}; expected a token")
        names[name] = spelling
    return names


def _require_added(
    folder: Path,
    config: Mapping[str, Any],
    added: Mapping[str, Mapping[str, Any]],
    ids: Mapping[str, int],
) -> None:
    """Every token that another file adds must be one of tokenizer.json, of the same id and kind."""
    listed: list[tuple[object, object, Mapping[str, Any]]] = []
    if "added_tokens_decoder" in config:
        decoder = _object(config, "added_tokens_decoder", CONFIG_NAME)
        listed = [
            (token.get("content"), one, token) if isinstance(token, dict) else (token, one, {})
            for one, token in decoder.items()
        ]
        missing = set(added) - {spelling for spelling, _, _ in listed if isinstance(spelling, str)}
        if missing and config.get("tokenizer_class") not in FILE_CLASSES:
            raise CheckpointError(
                f"{CONFIG_NAME} leaves {len(missing)} of the added tokens of {TOKENIZER_NAME} out "
                f"of added_tokens_decoder, {min(missing)!r} among them; {_AGAIN}"
            )
    else:
        listed = [
            (name, one, {}) for name, one in read_json(folder / "added_tokens.json", {}).items()
        ]
    listed += [(_spelling(token), ids.get(_spelling(token)), {}) for token in _extra(config)]
    for spelling, one, flags in listed:
        own = added.get(spelling) if isinstance(spelling, str) else None
        if own is None or str(own["id"]) != str(one) or _kind({**own, **flags}) != _kind(own):
            raise CheckpointError(
                f"{CONFIG_NAME} or added_tokens.json has a token {str(spelling)[:80]!r} of id "
                f"{str(one)[:20]} that {TOKENIZER_NAME} does not have so; {_AGAIN}"
            )


def _extra(config: Mapping[str, Any]) -> list[Any]:
    """Tokens that are to be special besides those that have a name."""
    for name in ("extra_special_tokens", "additional_special_tokens"):
        stated = config.get(name)
        if stated and not isinstance(stated, list | dict):
            raise CheckpointError(
                f"{CONFIG_NAME} says {name} {str(stated)[:80]!r}; expected a list of tokens"
            )
        if stated:
            return stated if isinstance(stated, list) else []
    return []


def _spelling(token: object) -> str:
    """Of a token that is given by its spelling or as an object; empty where it is neither."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def _kind(token: Mapping[str, Any]) -> tuple[bool, ...]:
    """How a token is found in a text."""
    return tuple(bool(token.get(flag, False)) for flag in ("lstrip", "rstrip", "single_word"))


def _object(source: Mapping[str, Any], name: str, file: str) -> dict[str, Any]:
    value = source.get(name)
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} has no object '{name}'; {_AGAIN}")
    return value
