"""Pickles of plain data: lists, dictionaries, texts and numbers, and nothing that could run code."""

import io
import pickle
from pathlib import Path

from edge_medgemma.runtime.errors import DatasetError

MAX_BYTES = 256 * 1024 * 1024
"""The largest table of PathVQA has 4 MB."""


class _PlainUnpickler(pickle.Unpickler):
    """Knows no class and no function: a pickle that names one is refused, not run."""

    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def load_plain_pickle(path: Path) -> object:
    """The lists, dictionaries, texts and numbers of a pickle.

    Raises:
        DatasetError: missing, damaged, too large, or it names a class or function, which could run
            any code on this machine.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DatasetError(f"'{path}' is larger than {MAX_BYTES >> 20} MB; expected a table")
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read '{path}': {error.strerror or error}") from error
    try:
        content: object = _PlainUnpickler(io.BytesIO(data), encoding="utf-8").load()
    except Exception as error:  # noqa: BLE001 a damaged pickle raises whatever its bytes ask for
        words = " ".join(str(error).split())[:120]
        raise DatasetError(
            f"'{path}' is not a pickle of plain data ({words}); save its rows as JSON under the same "
            "name with .json"
        ) from None
    return content
