"""`/api/config/sourceaetitle`: who may send."""

from typing import Any

from litestar import Controller, Response, delete, get, post, put
from litestar.params import FromPath, RawBody

from actors.api.entities import Source
from actors.api.openapi import body
from actors.api.routes.common import CONFIG_PATH, TheGateway, created

_EXAMPLE: dict[str, Any] = {"aeTitle": "MYPACS", "hostIp": "10.20.30.1"}
_Described = body(_EXAMPLE, entity="Source", about="hostIp may hold several addresses, networks and names.")


class SourceController(Controller):
    """Who may send."""

    path = f"{CONFIG_PATH}/sourceaetitle"
    tags = ("Sources",)

    @get(sync_to_thread=True)
    def list_all(self, gateway: TheGateway) -> list[Source]:
        """All sources."""
        return gateway.sources.all()

    @get("/{name:str}", sync_to_thread=True)
    def get_one(self, gateway: TheGateway, name: FromPath[str]) -> Source:
        """One source, found by its AE title."""
        return gateway.sources.one(name)

    @post(sync_to_thread=True, operation_class=_Described)
    def create(self, gateway: TheGateway, body: RawBody) -> Response[Source]:
        """Create a source; 400 tells every error."""
        entity = gateway.sources.create(body)
        return created(entity, self.path, entity.ae_title)

    @put("/{name:str}", sync_to_thread=True, operation_class=_Described)
    def replace(self, gateway: TheGateway, name: FromPath[str], body: RawBody) -> Source:
        """Replace all of a source but its key."""
        return gateway.sources.replace(name, body)

    @delete("/{name:str}", status_code=200, sync_to_thread=True)
    def remove(self, gateway: TheGateway, name: FromPath[str]) -> Source:
        """Delete a source; answers what it was."""
        return gateway.sources.delete(name)
