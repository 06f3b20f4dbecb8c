"""One clinic a state folder: whoever holds the lock of its file."""

import contextlib
import os
from collections.abc import Iterator

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.errors import ResourceError


@contextlib.contextmanager
def only_instance(state: StateFolder) -> Iterator[int]:
    """The state folder's lock, whose descriptor the system frees with the last process that has it.

    Raises:
        ResourceError: it is taken.
    """
    import fcntl

    descriptor = os.open(state.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield descriptor
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        raise ResourceError(
            f"a clinic already runs on '{state.path}' (process {holder}); stop it first, or name "
            "another --state"
        ) from None
    finally:
        os.close(descriptor)


def is_running(state: StateFolder) -> bool:
    """Whether a clinic, or a part of one, runs on the state folder."""
    import fcntl

    try:
        descriptor = os.open(state.lock_file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
