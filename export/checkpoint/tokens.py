"""Ids with a meaning of their own, of the tokenizer, config.json and generation_config.json.

The tokenizer decides, as in transformers (5.24): `Gemma3Processor` writes the tokens that the
tokenizer's files name. The model finds images by config.json's id, which must be the same one.
"""

from collections.abc import Mapping
from typing import Any

from edge_medgemma.export.checkpoint.config import build_spec
from edge_medgemma.export.checkpoint.tokenizer_files import TOKENIZER_NAME, TokenizerFiles
from edge_medgemma.runtime.errors import CheckpointError
from edge_medgemma.runtime.generation.tokenizer import CONTROL_TOKEN
from edge_medgemma.runtime.model_shape import TokenSpec

IMAGE_ID = 262_144
"""What Gemma3Config takes where config.json names none."""
THOUGHT_BEGIN, THOUGHT_END = "<unused94>", "<unused95>"
END_OF_TURN = "<end_of_turn>"


def token_spec(
    config: Mapping[str, Any],
    generation: Mapping[str, Any],
    tokenizer: TokenizerFiles,
    vocabulary: int,
) -> TokenSpec:
    """Ids with a meaning.

    Args:
        config: config.json
        generation: generation_config.json, empty when absent
        tokenizer: of the checkpoint
        vocabulary: embedding rows

    Raises:
        CheckpointError: an id that is missing, has no embedding, or that the files disagree about.
    """
    text = config.get("text_config") or {}
    image = _named(tokenizer, "image_token")
    for name in ("image_token_index", "image_token_id"):
        stated = config.get(name)
        if stated is not None and stated != image:
            raise _disagreement(name, stated, image)
    if {"image_token_index", "image_token_id"}.isdisjoint(config) and image != IMAGE_ID:
        raise _disagreement("image_token_index (by default)", IMAGE_ID, image)
    eos = tokenizer.ids.get(tokenizer.names.get("eos_token", ""))
    stop = _stop_ids((generation, config, text))
    stop += [one for one in (tokenizer.ids.get(END_OF_TURN),) if one is not None]
    if not stop and eos is not None:
        stop = [eos]
    spec: TokenSpec = build_spec(
        TokenSpec,
        bos=_named(tokenizer, "bos_token"),
        pad=_padding(config, text, tokenizer),
        stop=tuple(dict.fromkeys(stop)),
        image=image,
        image_begin=_named(tokenizer, "boi_token"),
        image_end=_named(tokenizer, "eoi_token"),
        thought_begin=tokenizer.ids.get(THOUGHT_BEGIN),
        thought_end=tokenizer.ids.get(THOUGHT_END),
        eos=eos,
    )
    _require_rows(spec, tokenizer, vocabulary)
    return spec


def _named(tokenizer: TokenizerFiles, name: str) -> int:
    spelling = tokenizer.names.get(name)
    if spelling is None or spelling not in tokenizer.ids:
        raise CheckpointError(
            f"the tokenizer's {name} is {spelling!r}, which {TOKENIZER_NAME} does not have; take "
            "the tokenizer's files of the original model"
        )
    return tokenizer.ids[spelling]


def _disagreement(name: str, stated: object, image: int) -> CheckpointError:
    return CheckpointError(
        f"config.json says {name} {stated!r} and the tokenizer writes {image} for an image; the "
        "model would not find the images, take both files of the original model"
    )


def _stop_ids(sources: tuple[Mapping[str, Any], ...]) -> list[int]:
    """The first that names any: generation_config.json wins, as in transformers."""
    for source in sources:
        stated = source.get("eos_token_id")
        if stated is None:
            continue
        ids = stated if isinstance(stated, list) else [stated]
        if not ids or not all(type(one) is int and one >= 0 for one in ids):
            raise CheckpointError(
                f"config.json or generation_config.json says eos_token_id {str(stated)[:80]}; "
                "expected an id or a list of them"
            )
        return list(ids)
    return []


def _padding(config: Mapping[str, Any], text: Mapping[str, Any], tokenizer: TokenizerFiles) -> int:
    found = tokenizer.ids.get(tokenizer.names.get("pad_token", ""))
    stated = (source.get("pad_token_id") for source in (config, text))
    value = found if found is not None else next((one for one in stated if one is not None), 0)
    if type(value) is not int:
        raise CheckpointError(f"config.json says pad_token_id {value!r}; expected an id")
    return value


def _require_rows(spec: TokenSpec, tokenizer: TokenizerFiles, vocabulary: int) -> None:
    """Every token that a prompt can hold has an embedding."""
    largest = max(spec.ids)
    if largest >= vocabulary:
        raise CheckpointError(
            f"the tokenizer has a token {largest} with a meaning and the model {vocabulary} "
            "embedding rows; take both of one model"
        )
    for spelling, one in tokenizer.ids.items():
        is_control = one in tokenizer.control_ids or CONTROL_TOKEN.fullmatch(spelling)
        if one >= vocabulary and not is_control:
            raise CheckpointError(
                f"the tokenizer has a token {one} that texts can hold and the model {vocabulary} "
                "embedding rows; take both of one model"
            )
