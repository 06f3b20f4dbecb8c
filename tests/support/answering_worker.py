"""The worker's end of the mailbox: a thread that answers with a real engine."""

import contextlib
import threading
from collections.abc import Iterator

from edge_medgemma.runtime.clinic.questions.answering import Answerer, engine_card
from edge_medgemma.runtime.clinic.questions.attendance import Attendance
from edge_medgemma.runtime.clinic.questions.mailbox import Mailbox
from edge_medgemma.runtime.clinic.settings import ClinicSettings, Site
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.generation.engine import Engine

DEMONSTRATION = ClinicSettings(site=Site(demonstration=True))


@contextlib.contextmanager
def answering(
    engine: Engine, state: StateFolder, settings: ClinicSettings = DEMONSTRATION
) -> Iterator[Answerer]:
    """Answer what is asked of `state` for as long as the block lasts."""
    answerer = Answerer(engine, state, settings)
    attendance = Attendance(state, engine_card(engine))
    mailbox, stop = Mailbox(state), threading.Event()

    def work() -> None:
        while not stop.wait(0.01):
            answerer.answer_next(mailbox)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield answerer
    finally:
        stop.set()
        thread.join(30)
        attendance.close()
    assert not thread.is_alive()
