"""Codes of public terminologies, each with where it was found; what has none gets a code of our own.

A code that points at another disease does harm that nobody sees, so none is taken from memory: the
source stands beside it, and `verhoeff_is_valid` finds a digit that was mistyped.
"""

from dataclasses import dataclass

from edge_medgemma.runtime.slicing.volume import BodyPart, Modality
from edge_medgemma.runtime.triage.protocol import StandardCode
from edge_medgemma.runtime.triage.urgency import Urgency

PRIVATE_SCHEME = "99EDGEMG"
"""Coding scheme designator of our own codes. PS3.16 8.2"""

PRIVATE_SCHEME_NAME = "edge-medgemma findings"


@dataclass(frozen=True, slots=True)
class Code:
    """An entry of a terminology, as DICOM, HL7 and FHIR all have it."""

    value: str
    scheme: str
    """DICOM coding scheme designator."""
    meaning: str


VERIFIED_FINDINGS = {
    "1386000": "DICOM PS3.16, Intracranial hemorrhage",
    "19242006": "DICOM PS3.16 CID 3700, Pulmonary edema",
    "230745008": "SNOMED CT Hydrocephalus, in value sets of several publishers",
    "233985008": "SNOMED CT Abdominal aortic aneurysm, in value sets of several publishers",
    "308546005": "DICOM PS3.16 CID 3700, Dissection of aorta",
    "36118008": "DICOM PS3.16 CID 6105, Pneumothorax",
    "373945007": "DICOM PS3.16 CID 12236, Pericardial effusion",
    "389026000": "SNOMED CT Ascites, in HL7 FHIR guides of several publishers",
    "43064006": "SNOMED CT Hydronephrosis, in maps to ICD-10 N13.3 of several publishers",
    "432504007": "SNOMED CT Cerebral infarction, in value sets of several publishers",
    "59282003": "DICOM PS3.16 CID 6104, Pulmonary embolism",
    "60046008": "DICOM PS3.16, Pleural effusion",
    "8186001": "SNOMED CT Cardiomegaly, in chest radiograph code lists of several publishers",
    "85189001": "SNOMED CT Acute appendicitis, in HL7 FHIR guides of several publishers",
    "95436008": "SNOMED CT Lung consolidation, in value sets of several publishers",
}
"""SNOMED CT codes of findings to where each was read. Fracture of skull and intestinal obstruction are
left out: public lists give their codes to other things too."""

CATEGORY_OF_URGENCY = {
    Urgency.CRITICAL: Code("RID49480", "RADLEX", "ACR Category 1 Actionable Finding"),
    Urgency.URGENT: Code("RID49481", "RADLEX", "ACR Category 2 Actionable Finding"),
    Urgency.ROUTINE: Code("RID49482", "RADLEX", "ACR Category 3 Actionable Finding"),
}
"""PS3.16 CID 7035, of a flagged finding. A study without a flag has none: "non-actionable" would be
read as a normal report."""

SITES = {
    BodyPart.HEAD: Code("69536005", "SCT", "Head"),
    BodyPart.CHEST: Code("816094009", "SCT", "Chest"),
    BodyPart.ABDOMEN: Code("818981001", "SCT", "Abdomen"),
}
"""PS3.16 CID 4031."""

MODALITIES = {
    Modality.CT: Code("CT", "DCM", "Computed Tomography"),
    Modality.MR: Code("MR", "DCM", "Magnetic Resonance"),
    Modality.CR: Code("CR", "DCM", "Computed Radiography"),
    Modality.DX: Code("DX", "DCM", "Digital Radiography"),
}
"""PS3.16 CID 29; the procedure that is reported, where the images do not name it."""

PRESENCE_OF_PROPERTY = Code("121052", "DCM", "Presence of property")
PRESENT = Code("52101004", "SCT", "Present")
"""PS3.16 CID 240. "Absent" is never sent, and a flag that is doubted stands: it is present."""

REPORT = Code("18748-4", "LN", "Diagnostic Imaging Report")
IMPRESSION = Code("19005-8", "LN", "Impressions")
STUDY = Code("113014", "DCM", "Study")
"""PS3.16 Annex D."""


def finding_code(code: str, title: str, standard: StandardCode | None) -> Code:
    """The terminology's code of a finding where it was verified, else our own with its title."""
    if standard is not None and standard.scheme == "SCT" and standard.value in VERIFIED_FINDINGS:
        return Code(standard.value, standard.scheme, standard.display)
    return Code(code, PRIVATE_SCHEME, title)


_D5 = [
    "0123456789",
    "1234067895",
    "2340178956",
    "3401289567",
    "4012395678",
    "5987604321",
    "6598710432",
    "7659821043",
    "8765932104",
    "9876543210",
]
_PERMUTATIONS = [
    "0123456789",
    "1576283094",
    "5803796142",
    "8916043527",
    "9453126870",
    "4286573901",
    "2793806415",
    "7046913258",
]


def verhoeff_is_valid(digits: str) -> bool:
    """Whether the last digit of a SNOMED CT identifier checks the others (Verhoeff, dihedral group D5)."""
    if not digits.isascii() or not digits.isdigit():
        return False
    check = 0
    for place, digit in enumerate(reversed(digits)):
        permuted = int(_PERMUTATIONS[place % 8][int(digit)])
        check = int(_D5[check][permuted])
    return check == 0
