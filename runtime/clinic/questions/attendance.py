"""What the worker says of its engine, for as long as it lives: `questions/engine.json`."""

import os
from dataclasses import dataclass
from pathlib import Path

from edge_medgemma.runtime.clinic.questions.locks import hold, is_held
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.documents import dump_json, parse_json
from edge_medgemma.runtime.files import write_errors


@dataclass(frozen=True, slots=True)
class EngineCard:
    """What page and API may say of the engine without opening it."""

    name: str
    """Of the checkpoint."""
    sha256: str
    """Of the manifest."""
    notice: str
    """What must stand with every answer; empty for most."""
    answers_pictures: bool
    """Whether it takes free questions and pictures, or those of its scope alone."""
    max_positions: int
    """Tokens of a prompt and its answer."""
    tokens_per_image: int


def _path(state: StateFolder) -> Path:
    return state.questions / "engine.json"


class Attendance:
    """Held by the worker while it answers."""

    def __init__(self, state: StateFolder, card: EngineCard) -> None:
        """Put up the card.

        Raises:
            ResourceError: the disk is full.
        """
        self._path = _path(state)
        temporary = self._path.with_name(f".engine.{os.getpid()}")
        with write_errors(self._path):
            self._file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            hold(self._file)  # the lock goes with the file when it is renamed
            os.write(self._file, dump_json(card).encode())
            os.replace(temporary, self._path)

    def close(self) -> None:
        """Take it down."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def engine_card(state: StateFolder) -> EngineCard | None:
    """The card of the living worker; None where none lives."""
    path = _path(state)
    if not is_held(path):
        return None
    try:
        return parse_json(path.read_bytes(), EngineCard)
    except (OSError, ValueError):
        return None
