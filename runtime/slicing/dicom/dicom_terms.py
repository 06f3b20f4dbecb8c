"""Free terms of a header mapped to closed lists, so that no text of a file travels further."""

import re
from collections.abc import Sequence

from edge_medgemma.runtime.slicing.volume import BodyPart

BODY_PARTS = {
    BodyPart.HEAD: ("BRAIN", "HEAD", "SKULL"),
    BodyPart.CHEST: ("CHEST", "LUNG", "THORAX"),
    BodyPart.ABDOMEN: ("ABDOMEN", "LIVER", "PELVIS", "KIDNEY"),
}
"""Terms of body part examined (0018,0015) by the part whose protocol fits (PS3.16 annex L)."""

REGION_CODES = {
    BodyPart.HEAD: ("T-D1100", "69536005", "T-A0100", "12738006", "T-11100", "89546000"),
    BodyPart.CHEST: ("T-D3000", "51185008", "T-28000", "39607008"),
    BodyPart.ABDOMEN: ("T-D4000", "818981001", "113345001", "T-D6000", "12921003", "T-62000",
                       "10200004", "T-D4010", "818983003", "416949008"),
}  # fmt: skip
"""SNOMED codes, old and new, of head, brain and skull; chest and lung; abdomen, pelvis, liver and
abdomen with pelvis (PS3.16 CID 4031 and annex L)."""

SHARP_KERNEL_TERMS = ("BONE", "LUNG", "EDGE", "ULTRA", "DETAIL", "SHARP")
"""GE and generic names of high-resolution kernels."""

SIEMENS_SHARP_FROM = 60
"""Siemens names kernels by a sharpness of 10 to 99 after one or two letters: H60s, Br64, I70f."""

CANON_SHARP = (range(30, 40), range(50, 60), range(80, 90))
"""Canon's FC30-39 are for bone, FC50-59 and FC80-89 for lung."""

PHILIPS_SHARP = ("C", "D", "E", "L", "YA", "YB", "YC", "YD")
"""Philips letters of bone and lung filters; A, B, UA and UB are soft."""


def body_part_from_term(term: str) -> BodyPart:
    """The one part whose words occur in `term`; UNKNOWN for none or for several."""
    words = set(re.split(r"[^A-Z]+", term.upper()))
    found = [part for part, terms in BODY_PARTS.items() if words.intersection(terms)]
    return found[0] if len(found) == 1 else BodyPart.UNKNOWN


def body_part_from_codes(codes: Sequence[str]) -> BodyPart:
    """The one part that code values of anatomic regions stand for; UNKNOWN for none or several."""
    found = [part for part, known in REGION_CODES.items() if set(codes).intersection(known)]
    return found[0] if len(found) == 1 else BodyPart.UNKNOWN


def is_sharp_kernel(kernel: str) -> bool:
    """Whether convolution kernel (0018,1210) is one for bone or lung; False if not recognised."""
    name = kernel.split("\\")[0].strip().upper()
    if any(term in name for term in SHARP_KERNEL_TERMS) or name in PHILIPS_SHARP:
        return True
    if canon := re.match(r"FC(\d\d)", name):
        return any(int(canon[1]) in sharp for sharp in CANON_SHARP)
    siemens = re.match(r"[A-Z]{1,2}(\d\d)[A-Z]?", name)
    return bool(siemens) and int(siemens[1]) >= SIEMENS_SHARP_FROM if siemens else False
