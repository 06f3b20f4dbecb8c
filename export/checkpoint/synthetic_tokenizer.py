"""A small tokenizer with Gemma 3's special tokens at their ids, for checkpoints without their own.

The layout follows Gemma 3's tokenizer.json: byte-pair encoding over characters with byte fallback,
so that every text encodes and decodes back; only its words are missing.
"""

import json
from typing import Any

from edge_medgemma.runtime.model_shape import TokenSpec

UNKNOWN_ID = 3
UNUSED_FIRST_ID = 6
START_OF_TURN_ID = 105
END_OF_TURN_ID = 106
NEWLINES_FIRST_ID = 107
BYTES_FIRST_ID = 238
PIECES_FIRST_ID = BYTES_FIRST_ID + 256
"""Ids of Gemma 3's vocabulary; from PIECES_FIRST_ID on, its pieces differ from those here."""

_SPACE = "\u2581"
_WORDS = ("yes", "no", "Yes", "No", "YES", "NO", "SLICE", "Final", "Answer")

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- set system = '' -%}
{%- set turns = messages -%}
{%- if messages[0]['role'] == 'system' -%}
    {%- set content = messages[0]['content'] -%}
    {%- set system = (content if content is string else content[0]['text']) + '\\n\\n' -%}
    {%- set turns = messages[1:] -%}
{%- endif -%}
{%- for turn in turns -%}
    {%- if (turn['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/...') -}}
    {%- endif -%}
    {{- '<start_of_turn>' + ('model' if turn['role'] == 'assistant' else turn['role']) + '\\n' -}}
    {{- system if loop.first else '' -}}
    {%- if turn['content'] is string -%}
        {{- turn['content'] | trim -}}
    {%- else -%}
        {%- for item in turn['content'] -%}
            {{- '<start_of_image>' if item['type'] == 'image' else item['text'] | trim -}}
        {%- endfor -%}
    {%- endif -%}
    {{- '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<start_of_turn>model\\n' -}}
{%- endif -%}
"""
"""Gemma 3's conversation format: no system role, text trimmed, parts joined without separator."""


def tokenizer_json(tokens: TokenSpec) -> bytes:
    """A `tokenizers` file with the special tokens of `tokens` at their ids, as UTF-8 JSON."""
    special = _special_tokens(tokens)
    vocabulary = {content: index for index, content in special.items()}
    vocabulary |= {"\n" * count: NEWLINES_FIRST_ID + count - 1 for count in (1, 2)}
    vocabulary |= {f"<0x{byte:02X}>": BYTES_FIRST_ID + byte for byte in range(256)}
    pieces, merges = _pieces()
    vocabulary |= {piece: PIECES_FIRST_ID + index for index, piece in enumerate(pieces)}
    return json.dumps(_tokenizer(special, vocabulary, merges), ensure_ascii=False).encode()


def _special_tokens(tokens: TokenSpec) -> dict[int, str]:
    special = {
        tokens.pad: "<pad>",
        1: "<eos>",
        tokens.bos: "<bos>",
        UNKNOWN_ID: "<unk>",
        START_OF_TURN_ID: "<start_of_turn>",
        END_OF_TURN_ID: "<end_of_turn>",
        tokens.image_begin: "<start_of_image>",
        tokens.image_end: "<end_of_image>",
        tokens.image: "<image_soft_token>",
    }
    unused = range(UNUSED_FIRST_ID, START_OF_TURN_ID)
    return dict(sorted((special | {i: f"<unused{i - UNUSED_FIRST_ID}>" for i in unused}).items()))


def _pieces() -> tuple[list[str], list[list[str]]]:
    """Printable ASCII, then every prefix of the words; and the merges that build them."""
    pieces = [_SPACE, *(chr(code) for code in range(ord("!"), ord("~") + 1))]
    merges = [["\n", "\n"]]
    for word in _WORDS:
        for end in range(2, len(word) + 1):
            if word[:end] not in pieces:
                pieces.append(word[:end])
                merges.append([word[: end - 1], word[end - 1]])
    for word in _WORDS:
        pieces.append(_SPACE + word)
        merges.append([_SPACE, word])
    return pieces, merges


def _tokenizer(
    special: dict[int, str], vocabulary: dict[str, int], merges: list[list[str]]
) -> dict[str, Any]:
    added = [
        {
            "id": index,
            "content": content,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for index, content in special.items()
    ]
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {
                "<bos>": {
                    "id": "<bos>",
                    "ids": [vocabulary["<bos>"]],
                    "tokens": ["<bos>"],
                }
            },
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": dict(sorted(vocabulary.items(), key=lambda item: item[1])),
            "merges": merges,
        },
    }
