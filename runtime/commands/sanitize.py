"""Text of a model or a file, made safe for a terminal."""

import unicodedata

_SAFE = {"\n", "\t"}


def printable(text: str) -> str:
    r"""`text` with control and direction-changing characters spelled out.

    Escape sequences could rewrite what the screen says; bidirectional overrides could reverse it.

    >>> printable("a\x1b[2J")
    'a\\x1b[2J'
    """
    return "".join(c if c in _SAFE or _is_harmless(c) else _spelled(c) for c in text)


def _is_harmless(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def _spelled(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
