"""Codes are those of the terminologies, and identifiers follow from what they name."""

import pytest

from edge_medgemma.runtime.clinic.delivery.codes import (
    CATEGORY_OF_URGENCY,
    PRESENT,
    PRIVATE_SCHEME,
    SITES,
    VERIFIED_FINDINGS,
    finding_code,
    verhoeff_is_valid,
)
from edge_medgemma.runtime.clinic.delivery.fhir_checks import ABSENT
from edge_medgemma.runtime.clinic.delivery.uids import derived_uid
from edge_medgemma.runtime.triage.protocol import StandardCode, builtin_protocols
from edge_medgemma.runtime.triage.urgency import Urgency


def test_every_code_of_snomed_has_the_right_check_digit() -> None:
    protocols = [
        f.standard_code for p in builtin_protocols() for f in p.findings if f.standard_code
    ]
    values = {one.value for one in protocols if one.scheme == "SCT"}
    values |= {*VERIFIED_FINDINGS, ABSENT, PRESENT.value}
    values |= {site.value for site in SITES.values()}
    assert len(values) > 20
    assert [one for one in values if not verhoeff_is_valid(one)] == []


@pytest.mark.parametrize("wrong", ["89694002", "1386001", "", "36118O08", "٣٦١١٨٠٠٨"])
def test_a_mistyped_code_is_noticed(wrong: str) -> None:
    assert not verhoeff_is_valid(wrong)


def test_a_finding_without_a_verified_code_has_one_of_ours() -> None:
    weak = StandardCode("SCT", "71642004", "Fracture of skull")
    assert finding_code("skull_fracture", "Skull fracture", weak).scheme == PRIVATE_SCHEME
    assert finding_code("free_gas", "Free gas", None).scheme == PRIVATE_SCHEME
    sure = StandardCode("SCT", "36118008", "Pneumothorax")
    assert finding_code("pneumothorax", "Pneumothorax", sure).value == "36118008"


def test_a_study_that_is_not_assessable_has_no_category_of_its_own() -> None:
    assert Urgency.NOT_ASSESSABLE not in CATEGORY_OF_URGENCY


def test_an_identifier_is_that_of_its_parts_alone() -> None:
    assert derived_uid("a", "b") == derived_uid("a", "b")
    assert len({derived_uid("a", "b"), derived_uid("ab"), derived_uid("b", "a")}) == 3
    assert derived_uid("a").startswith("2.25.")
    assert len(derived_uid("a")) <= 64
