"""Who called a route that only visitors reach."""

from starlette.requests import Request

from edge_medgemma.runtime.clinic.page.access.guard import access_of, visitor_of


def visitor_name(request: Request) -> str:
    """Name of the user or program, for audit and records.

    Raises:
        RuntimeError: nobody logged in; the route is public by mistake.
    """
    visitor = visitor_of(request)
    if visitor is None:
        raise RuntimeError("a route that needs a visitor was reached without one")
    return visitor.name


async def note_view(request: Request, study_key: str) -> None:
    """Put into the audit that the visitor is shown a study."""
    await access_of(request).views.note(visitor_name(request), study_key)
