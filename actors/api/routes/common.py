"""What several routes share: how they get at the gateway, and parameters of lists."""

from typing import Annotated, TypeVar
from urllib.parse import quote

from litestar import Response
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from actors.api.entities import Entity
from actors.api.gateway import Gateway
from protocol.ledger import PAGE_ROWS

CONFIG_PATH = "/api/config"

E = TypeVar("E", bound=Entity)

TheGateway = NamedDependency[Gateway]
Limit = Annotated[int, QueryParameter(ge=1, le=PAGE_ROWS, description="At most so many.")]
Offset = Annotated[int, QueryParameter(ge=0, le=2**31 - 1, description="Leave out so many.")]


def created(entity: E, path: str, key: str) -> Response[E]:
    """201 with the place of what was created."""
    return Response(entity, status_code=201, headers={"Location": f"{path}/{quote(key, safe='')}"})
