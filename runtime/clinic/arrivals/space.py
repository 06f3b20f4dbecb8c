"""Room on the file system of the state folder, looked at before anything is taken in."""

import shutil
from dataclasses import dataclass

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.files import write_errors

_BYTES_PER_GB = 1e9


@dataclass(frozen=True, slots=True)
class Space:
    """Says whether more may be received."""

    state: StateFolder
    reserve_gb: float
    """Kept free: results, the worklist and the audit need room when nothing more comes in."""

    def has_room(self, size_bytes: int = 0) -> bool:
        """Whether so many bytes more leave the reserve free.

        Raises:
            ResourceError: the state folder is gone.
        """
        return self.free_bytes() - size_bytes >= self.reserve_gb * _BYTES_PER_GB

    def free_bytes(self) -> int:
        """Bytes that this user may still write.

        Raises:
            ResourceError: the state folder is gone.
        """
        with write_errors(self.state.path):
            return shutil.disk_usage(self.state.path).free
