"""The demonstration checkpoint as a folder that transformers and the exporter read."""

import json
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import Gemma3ForConditionalGeneration

from edge_medgemma.calibration.phantoms.anatomy import FINDINGS
from edge_medgemma.export.checkpoint.synthetic_tokenizer import CHAT_TEMPLATE
from edge_medgemma.export.demo.build import RECORD_NAME
from edge_medgemma.export.demo.dialogue import Dialogue, spoken_texts
from edge_medgemma.export.demo.network import IMAGE_SIZE, TOKENS_PER_IMAGE
from edge_medgemma.export.demo.vocabulary import (
    TOKENIZER_CONFIG,
    TOKENS,
    protocol_texts,
    train_tokenizer,
)
from edge_medgemma.runtime import triage
from edge_medgemma.runtime.generation.prompt import PromptBuilder
from edge_medgemma.runtime.generation.tokenizer import Tokenizer

PROTOCOLS = Path(next(iter(triage.__path__))) / "protocols"


@dataclass(frozen=True, slots=True)
class Record:
    """Origin of the checkpoint, kept beside its weights."""

    seed: int
    vision_seeds: tuple[int, int]
    language_seeds: tuple[int, int]
    platt_seeds: tuple[int, int]
    """First seed and the one after the last, of each purpose."""
    platt: dict[str, tuple[float, float]]
    """Per finding: slope and intercept of log-odds(yes) - log-odds(no)."""


def write_texts(folder: Path) -> None:
    """Write tokenizer, chat template and image settings; the weights come later."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer([*protocol_texts(PROTOCOLS), *spoken_texts()])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    settings = {
        "image_processor_type": "Gemma3ImageProcessor",
        "processor_class": "Gemma3Processor",
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "image_seq_length": TOKENS_PER_IMAGE,
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
    }
    _write_json(folder / "preprocessor_config.json", settings)
    _write_json(folder / "tokenizer_config.json", TOKENIZER_CONFIG)


def write_weights(folder: Path, network: Gemma3ForConditionalGeneration, record: Record) -> None:
    """Write the weights as bfloat16, the configuration and the record."""
    network.to(torch.bfloat16).save_pretrained(folder)
    network.to(torch.float32)
    _write_json(folder / RECORD_NAME, asdict(record))


def round_weights(network: Gemma3ForConditionalGeneration) -> None:
    """Give every weight the value it will have in the bfloat16 file."""
    network.to(torch.bfloat16).to(torch.float32)


def open_dialogue(folder: Path) -> Dialogue:
    """The questions of the head CT protocol in the words and ids of a checkpoint folder."""
    protocol = tomllib.loads((PROTOCOLS / "head_ct.toml").read_text(encoding="utf-8"))
    questions = {finding["code"]: finding["question"] for finding in protocol["findings"]}
    tokenizer = Tokenizer(folder / "tokenizer.json", TOKENS)
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    builder = PromptBuilder(tokenizer, TOKENS, TOKENS_PER_IMAGE, template)
    return Dialogue(
        tokenizer, builder, protocol["instruction"], [questions[code] for code in FINDINGS]
    )


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
