"""Whether a free question lies in the scope of an engine that knows a few findings only."""

import re

from edge_medgemma.runtime.errors import ProtocolError
from edge_medgemma.runtime.manifest import Scope
from edge_medgemma.runtime.triage.protocol import Finding, load_protocol

_SPELLINGS = (("haemorrhag", "hemorrhag"), ("oedema", "edema"), ("aemia", "emia"))
"""British and American: titles have one, questions to the model the other."""


def require_question_in_scope(question: str, scope: Scope | None) -> None:
    """Refuse a question that the engine was not made for; one without a scope takes any.

    A question is in scope if it names a finding by the noun at the end of its title, such as
    `haemorrhage`, `shift` or `fracture`.

    Raises:
        ProtocolError: it names none of the engine's findings; the message lists them.
    """
    if scope is None:
        return
    findings = [f for f in load_protocol(scope.protocol).findings if f.code in scope.findings]
    words = set(_words(question))
    if not any(noun in words for finding in findings for noun in _nouns(finding)):
        known = ", ".join(finding.title.lower() for finding in findings)
        raise ProtocolError(
            f"this engine answers questions about {known} alone; ask for one of them by name, or name "
            "another engine with --engine"
        )


def _nouns(finding: Finding) -> list[str]:
    """Last word of each alternative of the title, in the singular."""
    return [_words(one)[-1] for one in finding.title.split(" or ")]


def _words(text: str) -> list[str]:
    """Lower-case words, one spelling of each, without a plural's s."""
    lowered = text.lower()
    for british, american in _SPELLINGS:
        lowered = lowered.replace(british, american)
    return [word.removesuffix("s") for word in re.findall(r"[a-z]+", lowered)]
