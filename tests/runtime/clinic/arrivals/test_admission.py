"""Who is let in, row by row."""

from dataclasses import replace

import pytest

from edge_medgemma.runtime.clinic.arrivals.admission import Caller, refusal, rejection
from edge_medgemma.runtime.clinic.arrivals.recent import OUTCOME_WORDS, Outcome
from edge_medgemma.runtime.clinic.settings import ClinicSettings, Node, Peer

HERE = Caller(
    calling_ae_title="CT1",
    called_ae_title="EDGEMEDGEMMA",
    is_this_machine=True,
    has_certificate=False,
    wants_storage=True,
    open_associations=0,
    open_from_address=0,
    has_room=True,
)
LAN = replace(HERE, is_this_machine=False)
ANY = ClinicSettings()
PEERS = ClinicSettings(peers=(Peer("pacs", "PACS", "10.0.0.2", 104),))
NAMED = ClinicSettings(node=Node(senders=("CT1", "MR 1")), peers=PEERS.peers)


@pytest.mark.parametrize(
    ("caller", "settings", "outcome"),
    [
        (HERE, ANY, None),
        (LAN, ANY, Outcome.UNKNOWN_CALLING),
        (replace(LAN, has_certificate=True), ANY, None),
        (LAN, PEERS, Outcome.UNKNOWN_CALLING),
        (replace(LAN, calling_ae_title="PACS"), PEERS, None),
        (replace(LAN, calling_ae_title="PACS"), NAMED, None),
        (LAN, NAMED, None),
        (replace(LAN, calling_ae_title="MR 1"), NAMED, None),
        (replace(LAN, calling_ae_title="ct1"), NAMED, Outcome.UNKNOWN_CALLING),
        (replace(HERE, calling_ae_title="CT2"), NAMED, Outcome.UNKNOWN_CALLING),
        (
            replace(LAN, calling_ae_title="CT2", has_certificate=True),
            NAMED,
            Outcome.UNKNOWN_CALLING,
        ),
        (replace(HERE, calling_ae_title=""), NAMED, Outcome.UNKNOWN_CALLING),
        (replace(HERE, called_ae_title="edgemedgemma"), ANY, Outcome.UNKNOWN_CALLED),
        (replace(HERE, called_ae_title=""), ANY, Outcome.UNKNOWN_CALLED),
        (replace(HERE, open_associations=19), ANY, None),
        (replace(HERE, open_associations=20), ANY, Outcome.TOO_MANY),
        (replace(HERE, open_from_address=7), ANY, None),
        (replace(HERE, open_from_address=8), ANY, Outcome.TOO_MANY_FROM_ADDRESS),
        (replace(HERE, has_room=False), ANY, Outcome.NO_SPACE),
        (
            replace(HERE, has_room=False, wants_storage=False),
            ANY,
            None,
        ),  # an echo tells nothing bad
    ],
)
def test_who_is_let_in(caller: Caller, settings: ClinicSettings, outcome: Outcome | None) -> None:
    assert refusal(caller, settings) is outcome


def test_a_full_disk_and_a_crowd_pass_and_a_wrong_name_does_not() -> None:
    transient = {one for one in OUTCOME_WORDS if _is_rejection(one) and rejection(one)[0] == 2}
    assert transient == {Outcome.TOO_MANY, Outcome.TOO_MANY_FROM_ADDRESS, Outcome.NO_SPACE}
    assert rejection(Outcome.UNKNOWN_CALLED) == (1, 1, 7)
    assert rejection(Outcome.UNKNOWN_CALLING) == (1, 1, 3)


def test_every_outcome_has_words() -> None:
    assert OUTCOME_WORDS.keys() == set(Outcome)


def _is_rejection(outcome: Outcome) -> bool:
    try:
        rejection(outcome)
    except KeyError:
        return False
    return True
