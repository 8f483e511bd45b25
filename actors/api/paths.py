"""Finds a request's path in any case, as the original's router did, and keeps what is a key as it was written.

The fixed words of a path are brought into our spelling. A key keeps its percent-encoding until the route is found, so
that an AE title may hold a slash, and is decoded afterwards, once.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

Template = tuple[str | None, ...]
"""A route's segments; None is a key."""


class AnyCase:
    """Wraps an application.

    Args:
        app: what is called with the path in our spelling.
        templates: all routes.
    """

    def __init__(self, app: ASGIApp, templates: Iterable[Template]) -> None:
        self._app = app
        # The route with more fixed words first: /api/jobs/retry is no job.
        self._templates = sorted(templates, key=lambda template: template.count(None))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Rewrite the path, and pass the request on."""
        raw_path = scope.get("raw_path") or b""
        if scope["type"] == ScopeType.HTTP and raw_path:
            scope["path"] = self.rewritten(raw_path.decode("latin-1"))
        await self._app(scope, receive, send)

    def rewritten(self, path: str) -> str:
        """A percent-encoded path in our spelling; as it is when no route has its shape."""
        segments = [segment for segment in path.split("/") if segment]
        for template in self._templates:
            if len(template) == len(segments) and all(
                word is None or word == unquote(segment).casefold()
                for word, segment in zip(template, segments, strict=True)
            ):
                parts = (segment if word is None else word for word, segment in zip(template, segments, strict=True))
                return "/" + "/".join(parts)
        return unquote(path)


def decode_keys(params: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a path, decoded."""
    return {name: unquote(value) if isinstance(value, str) else value for name, value in params.items()}
