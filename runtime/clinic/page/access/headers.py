"""Which names the page answers to, which pages may send changes, and what every response says."""

import ipaddress
from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

DEFAULT_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with none, forms are sent with "Origin: null"
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
"""Of every response that does not set its own."""


def add_default_headers(headers: MutableHeaders) -> None:
    """Add what a response did not say itself."""
    for name, value in DEFAULT_HEADERS.items():
        headers.setdefault(name, value)


def is_own_host(headers: Headers, names: Collection[str], server_address: str) -> bool:
    """Whether the request calls this box by a name of its own.

    A page elsewhere whose name was made to point here (DNS rebinding) sends its own name.

    Args:
        headers: of the request
        names: lower case
        server_address: at which the connection arrived
    """
    given = headers.getlist("host")
    if len(given) != 1:
        return False
    try:
        parts = urlsplit(f"//{given[0]}")
        name, _ = (parts.hostname or "").rstrip(".").lower(), parts.port  # raises where it is none
    except ValueError:
        return False
    return name in names or _same_address(name, server_address)


def is_own_page(headers: Headers, scheme: str, *, is_change: bool) -> bool:
    """Whether a request comes from a page of this box, or from no page at all."""
    site = headers.getlist("sec-fetch-site")
    origins = headers.getlist("origin")
    if not is_change:
        return "cross-site" not in site or headers.get("sec-fetch-mode") == "navigate"
    if any(one != "same-origin" for one in site):
        return False
    return all(one == f"{scheme}://{headers.get('host')}" for one in origins)


def _same_address(name: str, address: str) -> bool:
    try:
        found, own = ipaddress.ip_address(name), ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(own, ipaddress.IPv6Address) and own.ipv4_mapped is not None:
        own = own.ipv4_mapped
    return found == own


def bearer_token(headers: Headers) -> str | None:
    """The token of a program; None where the request brings none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def lower(names: Sequence[str]) -> frozenset[str]:
    """Names as `is_own_host` compares them."""
    return frozenset(name.rstrip(".").lower() for name in names)
