"""The chat template of a checkpoint, from whichever file holds it."""

from pathlib import Path

from edge_medgemma.export.checkpoint.checkpoint import read_json
from edge_medgemma.runtime.errors import CheckpointError


def read_chat_template(folder: Path) -> str:
    """The template's text.

    Raises:
        CheckpointError: the folder has none.
    """
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = read_json(folder / name, {}).get("chat_template")
        if isinstance(template, str):
            return template
    raise CheckpointError(
        f"'{folder}' has no chat template; expected chat_template.jinja, or 'chat_template' in "
        "tokenizer_config.json"
    )
