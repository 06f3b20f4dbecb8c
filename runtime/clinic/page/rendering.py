"""Pages from templates: escaped, in the reader's language, never kept by a browser."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse

from edge_medgemma import __version__
from edge_medgemma.runtime.clinic.page import words
from edge_medgemma.runtime.clinic.page.languages import LANGUAGE_NAMES, language_of
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.reporting import words as report_words
from edge_medgemma.runtime.reporting.engineer_words import slices_seen
from edge_medgemma.runtime.reporting.labels import signed
from edge_medgemma.runtime.reporting.translation import Translation, languages
from edge_medgemma.runtime.reporting.wording import probability_words, ranges

PAGES = Path(__file__).parent / "pages"
NO_STORE = {"Cache-Control": "no-store"}


def render_page(
    request: Request, template: str, values: Mapping[str, Any], status: int = 200
) -> HTMLResponse:
    """A page for this reader.

    Args:
        request: its state may hold a `visitor`; its application's holds the settings
        template: name of a file in `pages`
        values: what the template shows
        status: of HTTP
    """
    settings: ClinicSettings = request.app.state.settings
    visitor = getattr(request.state, "visitor", None)
    tag = language_of(request, settings.site.language)
    common = {
        "site": settings.site,
        "path": request.url.path,
        "user": visitor.name if visitor else "",
        "csrf_token": visitor.session.csrf if visitor and visitor.session else "",
    }
    text = environment(tag).get_template(template).render({**common, **values})
    return HTMLResponse(text, status, {**NO_STORE, "Content-Language": tag})


@cache
def environment(tag: str) -> jinja2.Environment:
    """Templates in one language."""
    translation = Translation(tag)
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )

    made.install_gettext_callables(translation.text, translation.form, newstyle=True)  # type: ignore[attr-defined]
    made.globals.update(
        language_names={one: LANGUAGE_NAMES.get(one, one) for one in languages()},
        translation=translation,
        version=__version__,
        report_words=report_words,
        words=words,
    )
    made.filters.update(
        capitalised=lambda text: text[:1].upper() + text[1:],
        local_clock=local_clock,
        local_time=local_time,
        ranges=ranges,
        probability=probability_words,
        said=translation.text,
        signed=signed,
        slices_seen=slices_seen,
    )
    return made


def local_time(at: str) -> str:
    """UTC, ISO 8601, as `2026-11-23 18:30` by the clock on the wall."""
    return _local(at).strftime("%Y-%m-%d %H:%M")


def local_clock(at: str) -> str:
    """The same as `18:30` where it was today."""
    local = _local(at)
    is_today = local.date() == datetime.now(UTC).astimezone().date()
    return local.strftime("%H:%M") if is_today else local_time(at)


def _local(at: str) -> datetime:
    return datetime.fromisoformat(at).astimezone()
