"""Who is let in, as a pure function of who calls whom from where."""

from dataclasses import dataclass

from edge_medgemma.runtime.clinic.arrivals.recent import Outcome
from edge_medgemma.runtime.clinic.settings import ClinicSettings


@dataclass(frozen=True, slots=True)
class Caller:
    """An association request, and what else is going on."""

    calling_ae_title: str
    called_ae_title: str
    is_this_machine: bool
    has_certificate: bool
    """It came over TLS with a certificate of the box's authority."""
    wants_storage: bool
    open_associations: int
    """Others that are open."""
    open_from_address: int
    has_room: bool
    """The disk has more than its reserve."""


_REJECTIONS = {
    Outcome.UNKNOWN_CALLED: (1, 1, 7),
    Outcome.UNKNOWN_CALLING: (1, 1, 3),
    Outcome.TOO_MANY: (2, 3, 2),
    Outcome.TOO_MANY_FROM_ADDRESS: (2, 3, 2),
    Outcome.NO_SPACE: (2, 3, 1),
}
"""Result, source and reason of the rejection, PS3.8 section 9.3.4."""


def refusal(caller: Caller, settings: ClinicSettings) -> Outcome | None:
    """Why a caller is not let in; None where it is. AE titles are case-sensitive (PS3.5 section 6.2)."""
    node = settings.node
    if caller.called_ae_title != node.ae_title.strip(" "):
        return Outcome.UNKNOWN_CALLED
    if not _is_known(caller, settings):
        return Outcome.UNKNOWN_CALLING
    if caller.open_associations >= node.max_associations:
        return Outcome.TOO_MANY
    if caller.open_from_address >= node.max_associations_per_address:
        return Outcome.TOO_MANY_FROM_ADDRESS
    if caller.wants_storage and not caller.has_room:
        return Outcome.NO_SPACE
    return None


def rejection(outcome: Outcome) -> tuple[int, int, int]:
    """Result, source and reason that the caller is told."""
    return _REJECTIONS[outcome]


def _is_known(caller: Caller, settings: ClinicSettings) -> bool:
    titles = [*settings.node.senders, *(peer.ae_title for peer in settings.peers)]
    if caller.calling_ae_title in [title.strip(" ") for title in titles]:
        return True
    return not settings.node.senders and (caller.is_this_machine or caller.has_certificate)
