"""Ids with a meaning of their own, of config.json, generation_config.json and tokenizer.json."""

from collections.abc import Mapping
from pathlib import Path

from edge_medgemma.export.checkpoint.checkpoint import read_json
from edge_medgemma.export.checkpoint.config import Config, build_spec
from edge_medgemma.runtime.model_shape import TokenSpec


def special_token_ids(tokenizer: Path) -> dict[str, int]:
    """Id of every added token of a tokenizer.json, by its spelling."""
    added = read_json(tokenizer).get("added_tokens") or []
    return {token["content"]: int(token["id"]) for token in added}


def token_spec(config: Config, generation: Config, token_ids: Mapping[str, int]) -> TokenSpec:
    """Ids with a meaning; `token_ids` maps the tokenizer's special tokens to their ids."""
    text = config.get("text_config") or {}
    stop: list[int] = []
    for source in (generation, config, text):
        ids = source.get("eos_token_id")
        stop += [] if ids is None else ids if isinstance(ids, list) else [ids]
    stop += [token_ids[end] for end in ("<eos>", "<end_of_turn>") if end in token_ids]

    def token(field: str, default: int, *aliases: str) -> int:
        found = (source.get(key) for source in (config, text) for key in (field, *aliases))
        return int(next((value for value in found if value is not None), default))

    return build_spec(
        TokenSpec,
        bos=token("bos_token_id", 2),
        pad=token("pad_token_id", 0),
        stop=tuple(dict.fromkeys(int(index) for index in stop)),
        image=token("image_token_index", 262_144, "image_token_id"),
        image_begin=token("boi_token_index", 255_999, "boi_token_id"),
        image_end=token("eoi_token_index", 256_000, "eoi_token_id"),
        thought_begin=token_ids.get("<unused94>"),
        thought_end=token_ids.get("<unused95>"),
    )
