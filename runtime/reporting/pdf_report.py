"""The report as a PDF: WeasyPrint lays it out, Pango shapes every script, and nothing is fetched."""

import logging
from typing import Any

from edge_medgemma.runtime.errors import DependencyError


def check_pdf() -> None:
    """See whether PDFs can be made.

    Raises:
        DependencyError: WeasyPrint, or Pango of the system, is not installed.
    """
    _weasyprint()


def render_pdf(html: str) -> bytes:
    """The pages of `render_html` as a PDF, a study an A4 page, tagged for screen readers.

    The same page gives the same bytes.

    Args:
        html: pictures are `data:` addresses; no other address is followed

    Raises:
        DependencyError: WeasyPrint, or Pango of the system, is not installed.
    """
    weasyprint = _weasyprint()
    fetcher = weasyprint.urls.URLFetcher(allowed_protocols=("data",), allow_redirects=False)
    pdf: bytes = weasyprint.HTML(string=html, url_fetcher=fetcher).write_pdf(pdf_tags=True)
    return pdf


def _weasyprint() -> Any:
    from PIL import ImageFile

    takes_cut_pictures = ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        import weasyprint
    except (ImportError, OSError) as error:  # OSError: Pango is a library of the system
        raise DependencyError(
            f"a PDF needs WeasyPrint and Pango ({error}); install edge-medgemma[pdf], and of the system "
            "libpango-1.0-0 with libpangoft2-1.0-0"
        ) from None
    finally:  # WeasyPrint lets the whole process read pictures that are cut short
        ImageFile.LOAD_TRUNCATED_IMAGES = takes_cut_pictures
    logging.getLogger("weasyprint").setLevel(logging.ERROR)  # it warns of rules for the screen
    return weasyprint
