"""Scores of a short answer against a reference: exact after normalisation, and token F1.

The normaliser does what lmms-eval's task `slake` does, in its order: lower case, brackets with what
they hold out, punctuation out, blanks joined, names that mean the same, then words for yes and no.
"""

import re
import string
import unicodedata
from collections import Counter

YES, NO = "yes", "no"

_YES_WORDS = {"yes", "yeah", "yep", "true", "是", "是的", "有"}
_NO_WORDS = {"no", "nope", "false", "否", "不是", "没有", "无"}
_ALIASES = {"x ray": "xray"}
_BRACKETS = re.compile(r"\([^)]*\)|（[^）]*）")
_IDEOGRAPH = re.compile("([\u3400-\u9fff])")


def normalised(answer: str) -> str:
    """The answer as it is compared.

    >>> normalised("Yes.")
    'yes'
    >>> normalised("X-ray (frontal)")
    'xray'
    """
    text = _BRACKETS.sub(" ", answer.strip().lower())
    text = " ".join("".join(" " if _is_punctuation(c) else c for c in text).split())
    text = _ALIASES.get(text, text)
    if text in _YES_WORDS:
        return YES
    return NO if text in _NO_WORDS else text


def is_exact(answer: str, reference: str) -> bool:
    """Whether both are the same after normalisation."""
    return normalised(answer) == normalised(reference)


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall of words, as SQuAD counts them; no article is dropped.

    A Chinese character counts as a word. 0 where either is empty, 1 where both are.
    """
    said, expected = _tokens(answer), _tokens(reference)
    if not said or not expected:
        return float(said == expected)
    shared = sum((Counter(said) & Counter(expected)).values())
    return 2 * shared / (len(said) + len(expected))


def _tokens(text: str) -> list[str]:
    return _IDEOGRAPH.sub(r" \1 ", normalised(text)).split()


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")
