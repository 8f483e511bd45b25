"""What several routes share: how they get at the gateway, parameters of lists, and what they refuse."""

from typing import Annotated, TypeVar
from urllib.parse import parse_qsl, quote

from litestar import Response
from litestar.di import NamedDependency
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.openapi.spec import Operation, Parameter
from litestar.params import QueryParameter
from litestar.types import ASGIApp, Receive, Scope, Send

from actors.api.entities import Entity
from actors.api.gateway import Gateway
from actors.api.problems import ProblemError
from protocol.ledger import PAGE_ROWS

CONFIG_PATH = "/api/config"

E = TypeVar("E", bound=Entity)

TheGateway = NamedDependency[Gateway]
Limit = Annotated[int, QueryParameter(ge=1, le=PAGE_ROWS, description="At most so many.")]
Offset = Annotated[int, QueryParameter(ge=0, le=2**31 - 1, description="Leave out so many.")]


class OnlyKnownQuery(ASGIMiddleware):
    """Refuses query parameters that a route does not have: a filter with a wrong name would be none, and mean all."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Let a request through when its query holds nothing else than the API's description names."""
        asked = {name for name, _ in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)}
        if asked:
            known = _query_of(scope)
            if unknown := ", ".join(sorted(asked - set(known)))[:100]:
                remedy = f"use {', '.join(known)}" if known else "a command's filter is its body"
                raise ProblemError(400, f"the query parameter {unknown!r} is not known here: {remedy}")
        await next_app(scope, receive, send)


def _query_of(scope: Scope) -> list[str]:
    """The names of a route's query parameters."""
    item = (scope["litestar_app"].openapi_schema.paths or {})[scope["path_template"]]
    operation = item.get if scope["type"] == ScopeType.HTTP and scope["method"] == "GET" else item.post
    parameters = (operation.parameters or []) if isinstance(operation, Operation) else []
    return [each.name for each in parameters if isinstance(each, Parameter) and each.param_in == "query"]


def created(entity: E, path: str, key: str) -> Response[E]:
    """201 with the place of what was created."""
    return Response(entity, status_code=201, headers={"Location": f"{path}/{quote(key, safe='')}"})
