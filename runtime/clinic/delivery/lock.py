"""One lock of the outbox, which the system frees with the process that holds it."""

import contextlib
import os
from collections.abc import Iterator

from edge_medgemma.runtime.clinic.state_folder import StateFolder

_FILE = ".lock"


@contextlib.contextmanager
def outbox_lock(state: StateFolder) -> Iterator[None]:
    """Nothing is begun to be sent while a newer result of it may be made, nor the other way round."""
    import fcntl

    descriptor = os.open(state.outbox / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
