"""The chat template of a checkpoint, from whichever file transformers would take it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_medgemma.export.checkpoint.checkpoint import read_json
from edge_medgemma.export.checkpoint.tokenizer_files import TokenizerFiles
from edge_medgemma.runtime.errors import CheckpointError, EngineError, ProtocolError
from edge_medgemma.runtime.generation.prompt import PromptBuilder
from edge_medgemma.runtime.generation.prompt_proof import prove_prompt
from edge_medgemma.runtime.generation.tokenizer import Tokenizer
from edge_medgemma.runtime.model_shape import TokenSpec

JINJA_NAME = "chat_template.jinja"
JSON_NAME = "chat_template.json"
MORE_TEMPLATES = "additional_chat_templates"
DEFAULT = "default"
PROVIDED_NAMES = frozenset(
    {"bos_token", "eos_token", "pad_token", "boi_token", "eoi_token", "image_token"}
)
"""Special tokens that the runtime hands to a template."""


def read_chat_template(folder: Path) -> str:
    """The template's text.

    The order is that of `ProcessorMixin.get_processor_dict`: processor_config.json,
    chat_template.json, chat_template.jinja; then the tokenizer's own, which a processor ignores.

    Raises:
        CheckpointError: the folder has none, none of several is the default, or files conflict.
    """
    stated = read_json(folder / "processor_config.json", {}).get("chat_template")
    if stated is not None:
        return _default(stated, "processor_config.json")
    more = {path.stem: path for path in sorted((folder / MORE_TEMPLATES).glob("*.jinja"))}
    if (folder / JSON_NAME).exists():
        if more:
            raise CheckpointError(
                f"the checkpoint has {JSON_NAME} and {MORE_TEMPLATES}, which transformers refuses; "
                f"keep one {JINJA_NAME}"
            )
        return _default(read_json(folder / JSON_NAME).get("chat_template"), JSON_NAME)
    files = more | ({DEFAULT: folder / JINJA_NAME} if (folder / JINJA_NAME).exists() else {})
    if files:
        if DEFAULT not in files:
            raise _no_default(sorted(files), MORE_TEMPLATES)
        return _text(files[DEFAULT])
    stated = read_json(folder / "tokenizer_config.json", {}).get("chat_template")
    if stated is not None:
        return _default(_by_name(stated), "tokenizer_config.json")
    raise CheckpointError(
        f"'{folder}' has no chat template; expected {JINJA_NAME}, or 'chat_template' in "
        "tokenizer_config.json"
    )


def require_working_prompt(
    template: str,
    tokenizer: TokenizerFiles,
    tokens: TokenSpec,
    *,
    tokens_per_image: int,
    vocabulary: int,
) -> None:
    """Build prompts as the runtime will and check them; see `prove_prompt`.

    Raises:
        CheckpointError: what the prompt lacks, or the tokenizer cannot be read.
    """
    try:
        runtime_tokenizer = Tokenizer.of_json(tokenizer.content, tokens)
    except EngineError:
        raise CheckpointError(
            "tokenizer.json is not a tokenizer that can be read; take the one of the original model"
        ) from None
    try:
        builder = PromptBuilder(runtime_tokenizer, tokens, tokens_per_image, template)
        missing = sorted((builder.template.names & tokenizer.names.keys()) - PROVIDED_NAMES)
        if missing:
            raise CheckpointError(
                f"the chat template writes {missing[0]}, which an engine does not hand to it; take "
                "the chat template of the original model"
            )
        prove_prompt(builder, vocabulary, in_one_piece=tokenizer.in_one_piece)
    except (EngineError, ProtocolError) as error:
        raise CheckpointError(str(error)) from None


def _by_name(stated: object) -> object:
    """Templates by name, of the list that tokenizer_config.json may have."""
    if not isinstance(stated, list):
        return stated
    named = [one for one in stated if isinstance(one, dict) and isinstance(one.get("name"), str)]
    if len(named) != len(stated):
        raise CheckpointError(
            "tokenizer_config.json lists chat templates without names; expected 'name' and "
            "'template' of each"
        )
    return {one["name"]: one.get("template") for one in named}


def _default(stated: object, file: str) -> str:
    """The template, or the default one of several."""
    by_name: Mapping[str, Any] = stated if isinstance(stated, dict) else {DEFAULT: stated}
    if DEFAULT not in by_name:
        raise _no_default(sorted(by_name), file)
    template = by_name[DEFAULT]
    if not isinstance(template, str):
        raise CheckpointError(
            f"{file} says chat_template {str(template)[:80]!r}; expected a template's text"
        )
    return template


def _no_default(names: list[str], file: str) -> CheckpointError:
    return CheckpointError(
        f"{file} has the chat templates {', '.join(map(str, names))} and none named '{DEFAULT}'; "
        "name one so"
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CheckpointError(f"{path.name} is not UTF-8; download it again") from None
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read ({error.strerror})") from None
