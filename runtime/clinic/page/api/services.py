"""What the routes share: the worklist, the spool and the mailbox of one state folder."""

import threading
from dataclasses import dataclass, field

from edge_medgemma.runtime.clinic.arrivals.spool import Spool
from edge_medgemma.runtime.clinic.questions.mailbox import Mailbox
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.records import StudyRow
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.errors import WorklistError

UNKNOWN_STUDY = "There is no such study; it may have been deleted."


@dataclass(slots=True)
class Services:
    """Of one page's process."""

    state: StateFolder
    settings: ClinicSettings
    mailbox: Mailbox
    spool: Spool
    _worklist: Worklist | None = None
    _opening: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, state: StateFolder, settings: ClinicSettings) -> "Services":
        """Begin; what an earlier process left in the mailbox is deleted."""
        mailbox = Mailbox(state)
        mailbox.sweep()
        return cls(state, settings, mailbox, Spool(state))

    def worklist(self) -> Worklist:
        """Call it in a worker thread: opened once, used by all threads."""
        with self._opening:
            if self._worklist is None:
                self._worklist = Worklist.open(self.state)
            return self._worklist

    def study(self, key: str) -> StudyRow:
        """Call it in a worker thread.

        Raises:
            WorklistError: there is no study of that key.
        """
        row = self.worklist().study(key)
        if row is None:
            raise WorklistError(UNKNOWN_STUDY)
        return row
