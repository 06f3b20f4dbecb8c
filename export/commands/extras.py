"""Packages that only some commands need."""

from collections.abc import Iterator
from contextlib import contextmanager

from edge_medgemma.runtime.errors import DependencyError


@contextmanager
def requires_extra(extras: str) -> Iterator[None]:
    """Say which extras to install where an import inside fails.

    Raises:
        DependencyError: a module is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise DependencyError(
            f"'{error.name}' is not installed; from a checkout, run: pip install '.[{extras}]'"
        ) from None
