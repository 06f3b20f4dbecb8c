"""Body parts named by free text of a header: closed word lists, so that no text travels further.

Conventions of large vendors' protocol names and of departments that write English, French, Spanish,
Portuguese or German. Words are compared in capitals, without accents.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from edge_medgemma.runtime.slicing.dicom.frames import Frame
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality

KEYWORDS = [
    "BodyPartExamined", "AnatomicRegionSequence", "SeriesDescription", "ProtocolName",
    "StudyDescription", "RequestedProcedureDescription", "PerformedProcedureStepDescription",
    "FilterType",
]  # fmt: skip
"""Attributes that may name a body part; they are read here and go no further."""

WORDS = {
    BodyPart.HEAD: (
        "HEAD BRAIN SKULL CRANIUM CRANIAL CEREBRAL CEREBRUM ENCEPHALON INTRACRANIAL NEUROCRANIUM "
        "NEUROCRANE NCCT CTH CTHEAD STROKE "  # English
        "CRANE CERVEAU TETE ENCEPHALE CRANIEN CRANIENNE CEREBRALE AVC "  # French
        "CABEZA CRANEO CEREBRO ENCEFALO CEREBRAL CRANEAL ICTUS "  # Spanish
        "CABECA CRANIO ENCEFALICO CRANIANA CRANIOENCEFALICO "  # Portuguese
        "KOPF SCHAEDEL SCHADEL HIRN GEHIRN CCT CCRANIUM NEUROKRANIUM KRANIAL CEREBRUM HIRNSCHADEL"
    ),
    BodyPart.CHEST: (
        "CHEST LUNG LUNGS THORAX THOR THORACIC PULMONARY CTPA CTPE HRCT MEDIASTINUM RIBS CXR "  # English
        "POUMON POUMONS THORACIQUE POITRINE PULMONAIRE "  # French
        "TORAX PULMON PULMONES TORACICO PULMONAR PECHO "  # Spanish
        "PULMAO PULMOES TORACICA PEITO "  # Portuguese
        "LUNGE LUNGEN BRUST BRUSTKORB PULMONAL PULMONALIS"
    ),
    BodyPart.ABDOMEN: (
        "ABDOMEN ABDOMINAL ABD ABDO ABDPELV LIVER PELVIS PELVIC KIDNEY KIDNEYS KUB RENAL HEPATIC "
        "PANCREAS SPLEEN BOWEL APPENDIX UROGRAM UROGRAPHY UTERUS PROSTATE BLADDER OVARY COLON "
        "COLONOSCOPY COLONOGRAPHY ENTEROGRAPHY "  # English
        "ABDOMINALE ABDOMINO PELVIEN PELVIENNE FOIE REINS UROSCANNER "  # French
        "HIGADO RINON RINONES PELVICO UROTAC "  # Spanish
        "ABDOME FIGADO RINS PELVE BACIA "  # Portuguese
        "BAUCH OBERBAUCH UNTERBAUCH BECKEN LEBER NIERE NIEREN ABDOMINELL"
    ),
    BodyPart.OTHER: (
        "NECK SPINE SPINAL CERVICAL LUMBAR SACRUM KNEE ANKLE FOOT HAND WRIST ELBOW SHOULDER HIP FEMUR "
        "TIBIA LEG EXTREMITY HUMERUS FOREARM FINGER TOE CALCANEUS CLAVICLE SINUS SINUSES ORBIT "
        "ORBITS FACIAL MANDIBLE DENTAL IAC BREAST MAMMO HEART CARDIAC CORONARY CSPINE "
        "TSPINE LSPINE CAROTID FETUS FETAL FOETAL "  # English
        "RACHIS GENOU CHEVILLE PIED POIGNET COUDE EPAULE HANCHE FEMUR LOMBAIRE SEIN COEUR "
        "COLUMNA CUELLO RODILLA TOBILLO MUNECA CODO HOMBRO CADERA CORAZON MAMA "
        "COLUNA PESCOCO JOELHO TORNOZELO PUNHO COTOVELO OMBRO QUADRIL CORACAO "
        "WIRBELSAULE HWS BWS LWS HALS KNIE FUSS HANDGELENK ELLENBOGEN SCHULTER HUFTE HERZ "
        "NASENNEBENHOHLEN NNH FELSENBEIN MAMMA"
    ),
}  # fmt: skip
"""Words, space-separated, of each part."""

SEQUENCE_WORDS = {
    Modality.MR: {BodyPart.HEAD: ["MPRAGE", "FLAIR", "BOLD", "FMRI", "SWI", "SPGR3D", "BRAVO"]},
}
"""Names of sequences that are run on one part of the body alone."""

STEMS = {
    BodyPart.HEAD: ("SCHADEL", "SCHAEDEL", "HEADROUT", "HEADSEQ", "HEADSPI", "BRAINSEQ", "BRAINROUT",
        "NEUROCRAN", "ENCEPHAL", "ENCEFAL", "CRANEO", "CRANIO", "CEREBR"),
    BodyPart.CHEST: (
        "THORAX", "THORAC", "TORAX", "TORACO", "TORACE", "PULMON", "LUNGEN", "LUNGLOW", "CHESTROUT", "THORROUT",
    ),
    BodyPart.ABDOMEN: ("ABDOM", "OBERBAUCH", "ABDROUT", "ABDPEL", "ADDOM", "BAUCH", "NIEREN"),
    BodyPart.OTHER: ("WIRBEL", "MAMMOGR"),
}  # fmt: skip
"""Beginnings of compounds: `Thoraxuebersicht`, `Schädelbasis`, `ThorAbdomen`."""

ABBREVIATIONS = {
    "TAP": (BodyPart.CHEST, BodyPart.ABDOMEN), "CAP": (BodyPart.CHEST, BodyPart.ABDOMEN),
    "THORABD": (BodyPart.CHEST, BodyPart.ABDOMEN), "THABD": (BodyPart.CHEST, BodyPart.ABDOMEN),
}  # fmt: skip
"""Words for several parts: thorax, abdomen, pelvis."""

CHEST_AND_ABDOMEN = re.compile(r"TH?OR(AX|ACO)?-?ABDOM")
"""Beginnings of words for both: `ThorAbdomen`, `toracoabdominal`."""

PHRASES = (
    (r"(THORACIC|THORAX|DORSAL|T|C|L) ?-?SPINE", "SPINE"),
    (r"(FEMORAL|HUMERAL|RADIAL|FEMUR|HUMERUS) HEAD", "FEMUR"),
    (r"HEAD OF (THE )?(FEMUR|HUMERUS|RADIUS)", "FEMUR"),
    (r"(TETE|CABEZA|CABECA) ((DU|DEL?|DO) )?(FEMUR|HUMERUS|HUMERO|UMERO)", "FEMUR"),
    (r"(TETE|CABEZA|CABECA) (FEMORAL|HUMERAL|RADIAL)E?", "FEMUR"),
    (r"(FETAL|FOETAL|FETUS) (BRAIN|HEAD|CEREBRAL|CHEST|ABDOMEN|LUNGS?)", "FETUS"),
    (r"CEREBRO FETAL|CERVEAU F(O|OE)?ETAL", "FETUS"),
    (r"HEAD (FIRST|COIL|MATRIX|ARRAY|HOLDER)", " "),
    (r"(RACHIS|COLUMNA|COLUNA) (DORSALE?|TORACICA|THORACIQUE|CERVICALE?|LUMBAR|LOMBAR|LOMBAIRE)", "SPINE"),
    (r"CRANIO ?-?CERVICAL|CERVICO ?-?CRANIAL", "HEAD NECK"),
    (r"RAYOS X DE|RX|RADIOGRAFIA", " "),
)  # fmt: skip
"""Expressions in which a part's word means another part or a thing, and what is read instead."""

REGION_CODES = {
    BodyPart.HEAD: ("T-D1100", "69536005", "T-A0100", "12738006", "T-11100", "89546000"),
    BodyPart.CHEST: ("T-D3000", "51185008", "T-28000", "39607008"),
    BodyPart.ABDOMEN: ("T-D4000", "818981001", "113345001", "T-D6000", "12921003", "T-62000",
                       "10200004", "T-D4010", "818983003", "416949008"),
}  # fmt: skip
"""SNOMED codes, old and new, of head, brain and skull; chest and lung; abdomen, pelvis, liver and
abdomen with pelvis (PS3.16 CID 4031 and annex L)."""

FILTERS = {"HEAD FILTER": BodyPart.HEAD, "HEAD": BodyPart.HEAD}
"""Filter type (0018,1160): GE's bow-tie filter for heads is used for nothing else."""

_ORDER = (BodyPart.HEAD, BodyPart.CHEST, BodyPart.ABDOMEN, BodyPart.OTHER)
_PART_OF_WORD = {word: part for part in _ORDER for word in WORDS[part].split()}


def body_parts_of(frame: Frame, modality: Modality) -> tuple[BodyPart, ...]:
    """The parts of the body that a header names, in the order of `BodyPart`; none where it does not.

    What is said of the series goes before what is said of the study. Body part examined (0018,0015)
    is wrong in one study of seven (Güld et al., SPIE 4685, 2002): where the series' own texts name
    other parts, both are taken.
    """
    dataset = frame.dataset
    stated = parts_in_text(frame.term("BodyPartExamined")) or _parts_of_codes(frame)
    described = _parts(dataset, ("SeriesDescription", "ProtocolName"))
    if stated and described:
        agreed = [part for part in stated if part in described]
        return _ordered(agreed or (*stated, *described))
    if stated or described:
        return _ordered(stated or described)
    study = _parts(
        dataset,
        ("StudyDescription", "RequestedProcedureDescription", "PerformedProcedureStepDescription"),
    )
    filter_part = FILTERS.get(frame.term("FilterType"))
    return study or _parts_of_sequence(frame, modality) or ((filter_part,) if filter_part else ())


def parts_in_text(text: str) -> tuple[BodyPart, ...]:
    """The parts of the body whose words stand in a text; OTHER only where no other part does."""
    found: set[BodyPart] = set()
    # as written too: `cCT` is a word
    for plain in {_plain(_spaced(text)), _plain(text)}:
        replaced = plain
        for expression, meaning in PHRASES:
            replaced = re.sub(rf"\b(?:{expression})\b", f" {meaning} ", replaced)
        for word in re.findall(r"[A-Z]+", replaced):
            found.update(_parts_of_word(word))
    return _ordered(found)


def _parts_of_word(word: str) -> Sequence[BodyPart]:
    if word in ABBREVIATIONS:
        return ABBREVIATIONS[word]
    if word in _PART_OF_WORD:
        return (_PART_OF_WORD[word],)
    if CHEST_AND_ABDOMEN.match(word):
        return (BodyPart.CHEST, BodyPart.ABDOMEN)
    return [part for part, stems in STEMS.items() if word.startswith(stems)][:1]


def _parts_of_sequence(frame: Frame, modality: Modality) -> tuple[BodyPart, ...]:
    """By the name of an MR sequence: brain ones are run on spines and knees as well, but then named."""
    text = f"{frame.term('SeriesDescription')} {frame.term('ProtocolName')}"
    words = set(re.findall(r"[A-Z]+\w*", _plain(text)))
    known = SEQUENCE_WORDS.get(modality, {})
    return tuple(part for part, names in known.items() if words.intersection(names))


def _spaced(text: str) -> str:
    """`HeadRoutine` as two words."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)


def _plain(text: str) -> str:
    """Capitals without accents or underscores."""
    letters = unicodedata.normalize("NFKD", text.replace("ß", "ss").upper())
    return "".join(c for c in letters if not unicodedata.combining(c)).replace("_", " ")


def _parts(dataset: object, keywords: Iterable[str]) -> tuple[BodyPart, ...]:
    texts = [str(dataset.get(keyword) or "") for keyword in keywords]  # type: ignore[attr-defined]
    return _ordered({part for text in texts for part in parts_in_text(text)})


def _parts_of_codes(frame: Frame) -> tuple[BodyPart, ...]:
    """By the code of the anatomic region (0008,2218), a frame's own before the object's."""
    anatomy = frame.group("FrameAnatomySequence") or frame.dataset
    regions = anatomy.get("AnatomicRegionSequence") or []
    codes = {str(region.get("CodeValue") or "") for region in regions}
    return _ordered(part for part, known in REGION_CODES.items() if codes.intersection(known))


def _ordered(parts: Iterable[BodyPart]) -> tuple[BodyPart, ...]:
    """Without repetition; OTHER goes where a part that a protocol may cover is named as well."""
    found = set(parts)
    named = tuple(part for part in _ORDER if part in found and part is not BodyPart.OTHER)
    return named or ((BodyPart.OTHER,) if found else ())
