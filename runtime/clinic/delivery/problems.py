"""Why a delivery has not ended yet, in words for the person who sets the box up."""

from enum import StrEnum

from edge_medgemma.runtime.errors import PeerError
from edge_medgemma.runtime.reporting.translation import mark


class DeliveryProblem(StrEnum):
    """What a destination did; stable words for receipts."""

    UNREACHABLE = "unreachable"
    REJECTED = "rejected"
    TLS_FAILED = "tls_failed"
    BROKE_OFF = "broke_off"
    NO_ANSWER = "no_answer"
    KIND_REFUSED = "kind_refused"
    OBJECT_REFUSED = "object_refused"
    NOT_CONFIRMED = "not_confirmed"
    MESSAGE_REFUSED = "message_refused"
    SERVER_ERROR = "server_error"
    FOLDER = "folder"
    DAMAGED = "damaged"


PROBLEM_WORDS = {
    DeliveryProblem.UNREACHABLE: mark("It does not answer. Is it switched on, and are address and port right?"),
    DeliveryProblem.REJECTED: mark(
        "It refuses this box. Enter this box's AE title there, and compare its own AE title here."
    ),
    DeliveryProblem.TLS_FAILED: mark("The encrypted connection fails. Check the certificates on both sides."),
    DeliveryProblem.BROKE_OFF: mark("It broke off in the middle."),
    DeliveryProblem.NO_ANSWER: mark("It took the message and gave no answer."),
    DeliveryProblem.KIND_REFUSED: mark(
        "It does not take one kind of result. Take that kind out of its entry here, or allow it there."
    ),
    DeliveryProblem.OBJECT_REFUSED: mark("It refused a result. Its own log says why; is its disk full?"),
    DeliveryProblem.NOT_CONFIRMED: mark(
        "It has not confirmed that it keeps the results. Enter this box there as a storage commitment client."
    ),
    DeliveryProblem.MESSAGE_REFUSED: mark("It refused the message. Its own log says why."),
    DeliveryProblem.SERVER_ERROR: mark("It answered with an error of its own."),
    DeliveryProblem.FOLDER: mark("The folder cannot be written."),
    DeliveryProblem.DAMAGED: mark("What was made for it is damaged on this box's disk. Restart the box: it is made again."),
}  # fmt: skip


class DestinationError(PeerError):
    """A destination that is away or fails as a whole: nothing more is tried there for a while."""

    def __init__(self, problem: DeliveryProblem) -> None:
        super().__init__(PROBLEM_WORDS[problem])
        self.problem = problem


class ResultRefusedError(PeerError):
    """A destination that refuses one result; others may go on."""

    def __init__(self, problem: DeliveryProblem) -> None:
        super().__init__(PROBLEM_WORDS[problem])
        self.problem = problem
