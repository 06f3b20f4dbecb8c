"""How delivery stands with each destination, as plain data for the settings page."""

from dataclasses import dataclass

from edge_medgemma.runtime.clinic.delivery.manifest import (
    Manifest,
    latest_entries,
    read_manifest,
)
from edge_medgemma.runtime.clinic.delivery.problems import PROBLEM_WORDS, DeliveryProblem
from edge_medgemma.runtime.clinic.delivery.receipts import Receipt, read_receipt
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.errors import DeliveryError


@dataclass(frozen=True, slots=True)
class DestinationStatus:
    """One destination, as its results in the outbox tell."""

    name: str
    """Of its entry in the settings."""
    delivered: int
    """Results that it has; confirmed, where it confirms."""
    waiting: int
    """Results of which it lacks something or has not confirmed something."""
    unconfirmed: int
    """Of these, the ones that it has and has not confirmed yet."""
    confirms: bool
    """False where it does not offer storage commitment: it may still lose what it took."""
    waiting_since: str
    """When the oldest result that waits was made, UTC; empty where none waits."""
    problem: DeliveryProblem | None
    """Of the last attempt that failed; None where the last went well."""

    @property
    def problem_words(self) -> str:
        """What to do about it, to be translated; empty without a problem."""
        return PROBLEM_WORDS[self.problem] if self.problem is not None else ""


def outbox_status(state: StateFolder) -> tuple[DestinationStatus, ...]:
    """Every destination for which there is anything in the outbox, by name."""
    found: dict[str, list[tuple[Manifest, Receipt]]] = {}
    for entry in latest_entries(state):
        try:
            manifest = read_manifest(entry.folder)
        except DeliveryError:
            continue
        for name in manifest.destinations:
            receipt = read_receipt(entry.folder, name) or Receipt()
            found.setdefault(name, []).append((manifest, receipt))
    return tuple(_status(name, pairs) for name, pairs in sorted(found.items()))


def _status(name: str, pairs: list[tuple[Manifest, Receipt]]) -> DestinationStatus:
    waiting = [(manifest, one) for manifest, one in pairs if not one.delivered_at]
    problems = [one.problem for _, one in waiting if one.problem is not None]
    return DestinationStatus(
        name=name,
        delivered=len(pairs) - len(waiting),
        waiting=len(waiting),
        unconfirmed=sum(bool(one.transactions) for _, one in waiting),
        confirms=not any(one.has_no_commitment for _, one in pairs),
        waiting_since=min((manifest.created_at for manifest, _ in waiting), default=""),
        problem=problems[-1] if problems else None,
    )
