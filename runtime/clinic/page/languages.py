"""Which language a reader gets: the one chosen, else the browser's, else the site's."""

from starlette.requests import Request

from edge_medgemma.runtime.reporting.translation import ENGLISH, languages

LANGUAGE_COOKIE = "language"

LANGUAGE_NAMES = {
    "ar": "العربية",
    "en": "English",
    "es": "Español",
    "fr": "Français",
    "hi": "हिन्दी",
    "pt": "Português",
    "sw": "Kiswahili",
}


def language_of(request: Request, site_language: str) -> str:
    """Tag of an installed language."""
    known = languages()
    wishes = [request.cookies.get(LANGUAGE_COOKIE, ""), *_accepted(request), site_language]
    for wish in wishes:
        for tag in (wish, wish.split("-")[0]):
            if tag in known:
                return tag
    return ENGLISH


def _accepted(request: Request) -> list[str]:
    """Tags of Accept-Language, those the browser likes best first. RFC 9110 12.5.4"""
    weighted = []
    for part in request.headers.get("accept-language", "")[:200].split(","):
        tag, _, weight = part.strip().partition(";q=")
        try:
            weighted.append((-float(weight or 1), tag))
        except ValueError:
            continue
    return [tag for _, tag in sorted(weighted, key=lambda pair: pair[0])]
