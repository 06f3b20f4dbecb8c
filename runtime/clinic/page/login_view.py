"""The page on which people log in, or the first of them is made."""

from starlette.requests import Request
from starlette.responses import Response

from edge_medgemma.runtime.clinic.page.access.guard import access_of
from edge_medgemma.runtime.clinic.page.rendering import render_page
from edge_medgemma.runtime.reporting.translation import mark

REFUSALS = {
    "400": mark("The name or the password cannot be used: choose a longer password."),
    "401": mark("The name or the password is wrong."),
    "403": mark("The setup code is wrong. This device shows it where it was started."),
    "409": mark("There are users already. Log in."),
    "429": mark("Too many tries. Wait a minute, then try again."),
}
"""By the status with which the form was refused."""

FAILED = mark("This did not work. Go back and try again.")


async def login(request: Request) -> Response:
    """The form; `?refused=` says why the last try failed."""
    refused = request.query_params.get("refused", "")
    values = {
        "needs_setup": not access_of(request).users.names(),
        "refused": REFUSALS.get(refused, FAILED) if refused else "",
    }
    return render_page(request, "login.html", values)
