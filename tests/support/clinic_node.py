"""The clinic's node as it runs at a clinic: a process of its own, on ports of loopback."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.clinic_peers import DicomAddress, free_port, stop

from edge_medgemma.runtime.clinic.arrivals.recent import RecentAssociation, recent_associations
from edge_medgemma.runtime.clinic.arrivals.spool import Spool
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.records import StudyRow
from edge_medgemma.runtime.clinic.worklist.store import Worklist

AE_TITLE = "EDGEMEDGEMMA"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
QUIET = "released_quiet_s = 0.4\nquiet_s = 3\ngive_up_s = 60\n"
"""Lines of `[node]` for tests: a look begins soon."""

_READY_S = 60.0


@dataclass(slots=True)
class ClinicNode:
    """A node that may be ended and started again on the same state folder."""

    state: StateFolder
    address: DicomAddress
    tls_port: int
    settings: Path
    process: subprocess.Popen[bytes] | None = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.state.path.parent / "node.log"

    @property
    def spool(self) -> Spool:
        return Spool(self.state)

    def start(self, prefix: Sequence[str] = ()) -> None:
        """Start it, under a program such as strace, and wait for its port."""
        command = [*prefix, sys.executable, "-m", "edge_medgemma", "clinic", "node"]
        command += ["--state", str(self.state.path), "--settings", str(self.settings)]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, env={**os.environ, "LC_ALL": "C.UTF-8"}
            )
        until(lambda: self._answers() or self.process.poll() is not None, seconds=_READY_S)  # type: ignore[union-attr]
        assert self.process.poll() is None, self.log.read_text()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """End it politely; its exit status."""
        assert self.process is not None
        stop(self.process)
        return self.process.returncode

    def row(self, study_uid: str) -> StudyRow | None:
        """The study in the worklist."""
        with Worklist.open(self.state) as worklist:
            return worklist.study(self.state.study_key(study_uid))

    def settled(self, study_uid: str, is_so: Callable[[StudyRow], bool]) -> StudyRow:
        """The study once it is as it should be; as it is after half a minute if it never was."""
        found = lambda: (row := self.row(study_uid)) is not None and is_so(row)
        with contextlib.suppress(TimeoutError):
            until(found)
        row = self.row(study_uid)
        assert row is not None
        return row

    def received(self, study_uid: str) -> tuple[Path, ...]:
        """Images of a study in the spool."""
        return self.spool.files(self.state.study_key(study_uid))

    def recent(self, calling: str) -> tuple[RecentAssociation, ...]:
        """What the setup page shows of one caller, newest first."""
        return tuple(
            one for one in recent_associations(self.state) if one.calling_ae_title == calling
        )

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.address.port), timeout=0.2).close()
        except OSError:
            return False
        return True


def until(is_so: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for something.

    Raises:
        TimeoutError: it did not come.
    """
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)


@contextlib.contextmanager
def clinic_node(
    folder: Path, node_settings: str = "", other_settings: str = "", *, starts: bool = True
) -> Iterator[ClinicNode]:
    """A node whose state lies in `folder`; ended with the block.

    Args:
        folder: made where missing
        node_settings: lines of the table `[node]`; `QUIET` without them
        other_settings: other tables
        starts: whether it runs already when the block begins
    """
    folder.mkdir(parents=True, exist_ok=True)
    port, tls_port = free_port(), free_port()
    lines = [f"port = {port}", f"tls_port = {tls_port}", node_settings or QUIET]
    if "reserve_gb" not in node_settings:
        lines.append("reserve_gb = 0.05")
    settings = folder / "clinic.toml"
    settings.write_text("[node]\n" + "\n".join(lines) + "\n" + other_settings)
    state = StateFolder(folder / "state")
    state.create()
    node = ClinicNode(state, DicomAddress(AE_TITLE, port), tls_port, settings)
    try:
        if starts:
            node.start()
        yield node
    finally:
        if node.process is not None and node.process.poll() is None:
            node.stop()


@contextlib.contextmanager
def association(
    node: ClinicNode,
    calling: str,
    abstract_syntax: str = CT_IMAGE,
    transfer_syntax: str = "1.2.840.10008.1.2.1",
) -> Iterator[Any]:
    """pynetdicom's association with a node, with one presentation context; released with the block."""
    from pynetdicom import AE

    entity = AE(calling)
    entity.add_requested_context(abstract_syntax, transfer_syntax)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 60
    opened = entity.associate("127.0.0.1", node.address.port, ae_title=node.address.ae_title)
    try:
        yield opened
    finally:
        if opened.is_established:
            opened.release()
