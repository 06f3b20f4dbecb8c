"""Keeping libraries that parse files from quoting them."""

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silenced(logger_name: str) -> Iterator[None]:
    """No warnings and no records of one logger inside the block: both quote values of the file."""
    logger = logging.getLogger(logger_name)
    was_disabled = logger.disabled
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.disabled = True
        try:
            yield
        finally:
            logger.disabled = was_disabled
