"""Free terms of a header mapped to closed lists, so that no text of a file travels further."""

import re
import unicodedata

from edge_medgemma.runtime.slicing.dicom.frames import Frame

SHARP_KERNEL_TERMS = ("BONE", "LUNG", "EDGE", "ULTRA", "DETAIL", "SHARP")
"""GE and generic names of high-resolution kernels."""

SIEMENS_SHARP_FROM = 60
"""Siemens names kernels by a sharpness of 10 to 99 after one or two letters: H60s, Br64, I70f."""

CANON_SHARP = (range(30, 40), range(50, 60), range(80, 90))
"""Canon's FC30-39 are for bone, FC50-59 and FC80-89 for lung."""

PHILIPS_SHARP = ("C", "D", "E", "L", "YA", "YB", "YC", "YD")
"""Philips letters of bone and lung filters; A, B, UA and UB are soft."""


def is_sharp_kernel(kernel: str) -> bool:
    """Whether convolution kernel (0018,1210) is one for bone or lung; False if not recognised."""
    name = kernel.split("\\")[0].strip().upper()
    if any(term in name for term in SHARP_KERNEL_TERMS) or name in PHILIPS_SHARP:
        return True
    if canon := re.match(r"FC(\d\d)", name):
        return any(int(canon[1]) in sharp for sharp in CANON_SHARP)
    siemens = re.match(r"[A-Z]{1,2}(\d\d)[A-Z]?", name)
    return bool(siemens) and int(siemens[1]) >= SIEMENS_SHARP_FROM if siemens else False


CONTRAST_KEYWORDS = ["ContrastBolusAgent", "ContrastBolusAgentSequence"]

NO_CONTRAST = re.compile(
    r"(NO|NON|NONE|N|NEIN|0|OFF|-+|N/?A|NATIV\w*|0? ?ML|"
    r"(NON?|NO|SANS|SIN|SEM|OHNE|KEIN\w*|WITHOUT|W/?O)([ -]*(IV|I\.V\.|CIV|CONTRAST\w*|ENHANCED|INJECTION|INJECTEE?|PRODUIT|KM|"
    r"KONTRAST\w*|MEDIO|MEIO|DE|AGENT|GIVEN)\b)*)?\.?"
)
"""What departments write into contrast/bolus agent (0018,0010) where none was given; `NON IONIC` is
an agent."""

CONTRAST_WORDS = re.compile(
    r"(?<![A-Z])(POST ?-?CONTRAST|WITH CONTRAST|W/? ?CONTRAST|CONTRAST ENHANCED|CE|C\+|\+C|KM|MIT KM|"
    r"NACH KM|ANGIO\w*|CTA|CTPA|CTV|IV\+|AVEC|CON CONTRASTE|COM CONTRASTE|INJECTE?E?|"
    r"ARTERIAL\w*|ARTERIELL?E?|VENOUS|VENOS\w*|CIV|C/C|PERFUSION|CTP|PORTAL\w*|DELAYED)(?![A-Z])"
)
"""Words of a series description that mean a contrast agent."""

WITHOUT_WORDS = re.compile(
    r"(?<![A-Z])(WITHOUT|W/?O|O\.? ?KM|NON?-? ?CONTRAST|NON?-? ?ENHANCED|PRE|C-|-C|OHNE|NATIV\w*|SANS|SIN|SEM)"
    r"(?![A-Z])"
)
"""Words that deny it."""


def has_contrast_agent(frame: Frame) -> bool:
    """Whether the header names a contrast agent, or the series description does in words."""
    agent = _without_accents(frame.term("ContrastBolusAgent"))
    if frame.dataset.get("ContrastBolusAgentSequence") or not NO_CONTRAST.fullmatch(agent):
        return True
    description = _without_accents(frame.term("SeriesDescription"))
    return bool(CONTRAST_WORDS.search(description)) and not WITHOUT_WORDS.search(description)


def _without_accents(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in letters if not unicodedata.combining(letter))
