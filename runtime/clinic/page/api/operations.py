"""One route with what it takes and gives, from which the OpenAPI document is made."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of a path."""

    method: str
    path: str
    """As starlette spells it."""
    endpoint: Endpoint
    """Its docstring is the description."""
    takes: type | str | None = None
    """Dataclass of a JSON body, or the media type of another body."""
    gives: type | str | None = None
    """Dataclass of a JSON response, or the media type of another one; None for no content."""
    status: int = 200
    """Of success."""
    is_public: bool = False
    """Whether it answers without login."""

    def route(self, wrap: Callable[[Endpoint], Endpoint]) -> Route:
        """The route, its endpoint wrapped."""
        return Route(self.path, wrap(self.endpoint), methods=[self.method])
