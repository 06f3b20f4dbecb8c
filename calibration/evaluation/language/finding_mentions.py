"""Which findings of a closed list a report mentions, and which it says are absent.

Rules after NegEx (Chapman et al. 2001): a finding is absent where a word such as `no` or `without` stands
before it in its clause, or `is not seen` behind it. Limits, by design: what is possible counts as
mentioned, a comparison with an earlier scan or a history counts like today's finding, and a finding in
other words than those of the list is not found.
"""

import re
from collections.abc import Sequence
from enum import StrEnum

from edge_medgemma.calibration.evaluation.language.finding_terms import NORMAL, TERMS, compiled

_TERMS, _NORMAL = compiled(TERMS), compiled(NORMAL)

_AMERICAN = (("haem", "hem"), ("oedema", "edema"), ("tumour", "tumor"), ("ischaem", "ischem"))

_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")

_CLAUSE = re.compile(
    r",? ?\b(?:but|however|although|though|yet|except(?: for)?|apart from|aside from|whereas|while)\b|"
    r"[,;:] (?=(?:there (?:is|are)|an? |the |small|tiny|trace|mild|moderate|large|new|stable|unchanged|"
    r"persistent|increased|left|right|bilateral)\b)(?!.*\b(?:or|nor)\b)"
)
"""Where a negation ends: at a word of contrast, and at a comma behind which a new statement begins; not
within a list that an `or` ends."""

_NO_NEGATION = re.compile(
    r"no (?:significant |interval |definite )*(?:change|increase|decrease|interval)\w*(?: in| of)?|"
    r"not (?:only|be excluded|excluded)|(?:cannot|can not) (?:be )?(?:exclude|rule)\w*(?: out)?|"
    r"without (?:significant |interval )*change(?: in)?|no new"
)

_BEFORE = re.compile(
    r"\b(?:no|not|without|negative for|free of|absence of|absent|denies|deny|neither|nor|never|"
    r"rul(?:e|es|ed|ing) out|resolved|resolution of|cleared|clearing of|clear of(?: any)?|lack of)\b"
)

_BEHIND = re.compile(
    r"^[^.;]{0,60}?\b(?:(?:is|are|was|were|has been|have been) "
    r"(?:not|no longer|absent|excluded|ruled out|resolved|unlikely)|(?:has|have) (?:resolved|cleared)|"
    r"not (?:seen|identified|present|visualized|demonstrated|evident|detected|noted)|absent|"
    r"ruled out)\b|^: (?:no|none|absent)\b"
)


class Mention(StrEnum):
    """What a report says of one finding."""

    MENTIONED = "mentioned"
    NEGATED = "negated"
    NOT_NAMED = "not_named"


def mentions(report: str, codes: Sequence[str]) -> dict[str, Mention]:
    """What a report says of each finding; named as present once, it is mentioned.

    Args:
        report: free text in English.
        codes: of findings; each must have terms.
    """
    found: dict[str, set[Mention]] = {code: set() for code in codes}
    for sentence in _SENTENCE.split(_plain(report)):
        for clause in _CLAUSE.split(sentence):
            for code in codes:
                found[code].update(_in_clause(clause, code))
    return {code: _said(values) for code, values in found.items()}


def unknown_codes(codes: Sequence[str]) -> list[str]:
    """Codes that have no terms: a report cannot be searched for them."""
    return [code for code in codes if code not in TERMS]


def _said(values: set[Mention]) -> Mention:
    if Mention.MENTIONED in values:
        return Mention.MENTIONED
    return Mention.NEGATED if values else Mention.NOT_NAMED


def _in_clause(clause: str, code: str) -> set[Mention]:
    found = set()
    if code in _NORMAL and _NORMAL[code].search(clause):
        found.add(Mention.NEGATED)
    for term in _TERMS[code].finditer(clause):
        said = _NO_NEGATION.sub(
            " ", clause[: term.end()]
        )  # `is not enlarged` negates within itself
        is_negated = _BEFORE.search(said) or _BEHIND.search(clause[term.end() :])
        found.add(Mention.NEGATED if is_negated else Mention.MENTIONED)
    return found


def _plain(report: str) -> str:
    """Lower case, American, single blanks within a line."""
    text = report.lower()
    for british, american in _AMERICAN:
        text = text.replace(british, american)
    return "\n".join(" ".join(line.split()) for line in text.splitlines())
