"""The demo engine's tokenizer: byte-level pairs learned from the words it will meet."""

import re
from collections.abc import Sequence
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from edge_medgemma.export.checkpoint.tokenizer_files import PIECES_KEY
from edge_medgemma.runtime.model_shape import TokenSpec

SPECIAL_TOKENS = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
    "<unused94>",
    "<unused95>",
)
"""Their ids are their places here."""

TOKENS = TokenSpec(
    bos=2,
    pad=0,
    stop=(1, 5),
    image=8,
    image_begin=6,
    image_end=7,
    thought_begin=9,
    thought_end=10,
)

TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
    PIECES_KEY: True,
}
"""tokenizer_config.json: the tokenizer is not Gemma's own."""

VOCABULARY_SIZE = 576
ANSWERS = ("Yes", "No", "yes", "no", " yes", " no", " Yes", " No", "YES", "NO")


def train_tokenizer(texts: Sequence[str]) -> tokenizers.Tokenizer:
    """A tokenizer that encodes any text, and `texts` in few tokens; answers are one token each."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        min_frequency=1,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    labels = [f"SLICE {number}" for number in range(1, 86)]
    corpus = [*texts, *labels, *(answer for answer in ANSWERS for _ in range(200)), *["\n\n"] * 200]
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def protocol_texts(folder: Path) -> list[str]:
    """Every instruction, title and question of the protocols in `folder`."""
    import tomllib

    texts: list[str] = []
    for path in sorted(folder.glob("*.toml")):
        protocol = tomllib.loads(path.read_text(encoding="utf-8"))
        texts += [protocol["title"], protocol["instruction"]]
        for finding in protocol["findings"]:
            texts += [finding["title"], finding["question"]]
    return [re.sub(r"\s+", " ", text).strip() for text in texts]
