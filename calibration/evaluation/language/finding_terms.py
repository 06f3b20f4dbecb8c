"""The words by which reports name the findings of the built-in protocols: a closed list.

American spelling; reports are brought to it before they are searched. The terms of a code are meant for
reports on the body part of its protocols: `fracture` in a report on a head is one of the skull.
"""

import re
from collections.abc import Mapping

TERMS: Mapping[str, str] = {
    "free_gas": (
        r"pneumoperitoneum|free (intra-?peritoneal |abdominal |subdiaphragmatic |intra-?abdominal )?"
        r"(air|gas)|(air|gas) (under|beneath|below) the (\w+ )?(hemi)?diaphragm"
    ),
    "abdominal_haemorrhage": (
        r"hemoperitoneum|active extravasation|"
        r"(intra-?abdominal|intra-?peritoneal|retroperitoneal|mesenteric) (hemorrhage|bleed(ing)?|hematoma)"
    ),
    "aortic_aneurysm": (
        r"aort(ic|a) aneurysm|aneurysm(al)? ((dilatation|dilation) )?of the (\w+ )?(\w+ )?aorta|\baaa\b"
    ),
    "bowel_obstruction": r"(bowel|intestinal|colonic) obstruction|obstructed (bowel|colon)|\bsbo\b",
    "appendicitis": r"appendicitis",
    "hydronephrosis": r"(hydro|pyo)(uretero)?nephrosis|hydroureteronephrosis",
    "ascites": r"ascites|free (intra-?peritoneal|abdominal) fluid",
    "liver_lesion": (
        r"(hepatic|liver) (\w+ )?(lesion|mass|nodule|metasta|tumor)|"
        r"(lesion|mass|nodule|metasta\w+)s? (in|of|within) the (\w+ )?(liver|hepatic)"
    ),
    "intracranial_haemorrhage": (
        r"(?<!scalp )(?<!subgaleal )(?<!tissue )(?<!\bneck )\b(hemorrhag(e|es|ic)|hematomas?|bleed(ing|s)?|"
        r"(subdural|epidural|extra-axial) collections?|\b(sah|sdh|edh|ich|ivh)\b)"
    ),
    "acute_infarct": (
        r"(acute|subacute|recent|evolving) (\w+ ){0,4}(infarct\w*|ischemi\w+|stroke)|restricted diffusion"
    ),
    "mass_effect": (
        r"mass effect|midline shift|shift of (the )?midline|"
        r"(subfalcine|uncal|tonsillar|transtentorial) herniation"
    ),
    "hydrocephalus": r"hydrocephalus|ventriculomegaly",
    "intracranial_mass": (
        r"(intracranial|brain|cerebral|cerebellar|(intra|extra)-axial|pituitary|dural) (\w+ )?"
        r"(mass(es)?(?! effect)|tumors?|neoplasms?|metasta\w+)|meningioma|glioma|glioblastoma|metastas[ei]s"
    ),
    "skull_fracture": r"fractures?",
    "pneumothorax": r"(hydro)?pneumothora(x|ces)",
    "aortic_dissection": r"aort(ic|a) dissection|dissection of the (\w+ )?aorta|(intimal|dissection) flap",
    "pulmonary_embolism": r"pulmonary (\w+ )?embol(ism|us|i)|\bpe\b|filling defects?",
    "pleural_effusion": r"(?<!pericardial )(?<!joint )effusions?|pleural fluid|hydro(pneumo)?thorax",
    "consolidation": (
        r"consolidat(ion|ions|ive)|air-?space (disease|opacit(y|ies)|process)|air bronchograms?|"
        r"pneumonia|infiltrates?"
    ),
    "pericardial_effusion": r"pericardial (effusion|fluid)",
    "lung_nodule_or_mass": r"nodules?|nodular (opacit|densit)\w+|mass(es)?(?! effect)\b",
    "pulmonary_oedema": r"(?<!tissue )(?<!marrow )edema",
    "cardiomegaly": (
        r"cardiomegaly|cardiac enlargement|enlarge(d|ment of the) (heart|cardiac|cardio\w+)|"
        r"(heart|cardiac (silhouette|contour|size|shadow)|cardiomediastinal silhouette)"
        r"( size)? ((is|are|appears|remains) )?(\w+ )?(enlarged|large\b)"
    ),
}
"""Finding code -> regular expression over lower-case American text."""

NORMAL: Mapping[str, str] = {
    "cardiomegaly": (
        r"(heart|cardiac|cardiomediastinal|cardio mediastinal)( size| silhouette| contours?| shadow)*"
        r"( and [\w ]{1,40})?( is| are| appears?| remains?)?( within)?( upper limits of)? normal|"
        r"normal (heart|cardiac|cardiomediastinal)( size| silhouette| contour)"
    ),
    "consolidation": r"lungs?( fields)?( are| is| appear| remain)?( grossly)? clear|clear lungs",
}
"""Phrases that say a finding is absent without naming it."""


def compiled(expressions: Mapping[str, str]) -> dict[str, re.Pattern[str]]:
    """The expressions of a table, whole words alone."""
    return {code: re.compile(rf"(?<![a-z])(?:{text})") for code, text in expressions.items()}
