"""What is shown to people, in their language; what a language pack lacks stays English."""

import gettext
from functools import cache
from pathlib import Path

DOMAIN = "edge_medgemma"
LANGUAGE_FOLDER = Path(__file__).parent / "languages"
ENGLISH = "en"

_RIGHT_TO_LEFT = frozenset({"ar", "fa", "he", "ps", "ur"})


def mark(message: str) -> str:
    """The message as it is: it is translated where it is shown, and extracted here."""
    return message


def languages() -> tuple[str, ...]:
    """Tags of all languages, English first."""
    packs = {path.parent.name for path in LANGUAGE_FOLDER.glob(f"*/{DOMAIN}.mo")}
    return (ENGLISH, *sorted(packs - {ENGLISH}))


class Translation:
    """The words of one language.

    >>> Translation("en").plural("%(num)d slice", "%(num)d slices", 2)
    '2 slices'
    """

    def __init__(self, tag: str) -> None:
        """`tag` is one of `languages()`, as BCP 47 writes it.

        Raises:
            ValueError: there is no such language.
        """
        if tag not in languages():
            raise ValueError(
                f"there is no language '{tag}'; expected one of {', '.join(languages())}"
            )
        self.tag = tag
        self._catalogue = _catalogue(tag)

    def text(self, message: str) -> str:
        """The message in this language; English where it has none."""
        return (self._catalogue.gettext(message) or message) if message else ""

    def knows(self, message: str) -> bool:
        """Whether the language has the message; English has all."""
        return self.tag == ENGLISH or bool(self._catalogue.gettext(message))

    def plural(self, one: str, many: str, number: int) -> str:
        """The form of a message for `number`, which takes the place of `%(num)d`."""
        return self.form(one, many, number) % {"num": number}

    def form(self, one: str, many: str, number: int) -> str:
        """The form of a message for `number`, its placeholders as they are."""
        return self._catalogue.ngettext(one, many, number)

    @property
    def is_right_to_left(self) -> bool:
        """Whether lines begin at the right."""
        return self.tag.split("-")[0] in _RIGHT_TO_LEFT

    @property
    def reviewer(self) -> str:
        """The clinician who read the whole pack; empty where nobody has."""
        return self._catalogue.info().get("x-reviewed-by", "")

    @property
    def is_reviewed(self) -> bool:
        """Whether a clinician has read the words; English is the source and needs none."""
        return self.tag == ENGLISH or bool(self.reviewer)


class _Missing(gettext.NullTranslations):
    """What a pack falls back to, to tell a missing message from one that is the same in English."""

    def gettext(self, message: str) -> str:
        return ""


@cache
def _catalogue(tag: str) -> gettext.NullTranslations:
    path = LANGUAGE_FOLDER / tag / f"{DOMAIN}.mo"
    if not path.exists():
        return _Missing()
    with path.open("rb") as file:
        catalogue = gettext.GNUTranslations(file)
    catalogue.add_fallback(_Missing())
    return catalogue
