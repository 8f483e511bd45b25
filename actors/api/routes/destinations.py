"""`/api/config/destinationaetitle`: where results may go."""

from typing import Any

from litestar import Controller, Response, delete, get, post, put
from litestar.params import FromPath, RawBody

from actors.api.entities import Destination
from actors.api.openapi import body
from actors.api.routes.common import CONFIG_PATH, TheGateway, created

_EXAMPLE: dict[str, Any] = {"name": "MYPACS", "aeTitle": "MYPACSAET", "hostIp": "10.20.30.2", "port": 1104}
_Described = body(_EXAMPLE, entity="Destination", about="All are needed.")


class DestinationController(Controller):
    """Where results may go."""

    path = f"{CONFIG_PATH}/destinationaetitle"
    tags = ("Destinations",)

    @get(sync_to_thread=True)
    def list_all(self, gateway: TheGateway) -> list[Destination]:
        """All destinations."""
        return gateway.destinations.all()

    @get("/{name:str}", sync_to_thread=True)
    def get_one(self, gateway: TheGateway, name: FromPath[str]) -> Destination:
        """One destination, found by its name without case."""
        return gateway.destinations.one(name)

    @post(sync_to_thread=True, operation_class=_Described)
    def create(self, gateway: TheGateway, body: RawBody) -> Response[Destination]:
        """Create a destination; 400 tells every error."""
        entity = gateway.destinations.create(body)
        return created(entity, self.path, entity.name)

    @put("/{name:str}", sync_to_thread=True, operation_class=_Described)
    def replace(self, gateway: TheGateway, name: FromPath[str], body: RawBody) -> Destination:
        """Replace all of a destination but its key."""
        return gateway.destinations.replace(name, body)

    @delete("/{name:str}", status_code=200, sync_to_thread=True)
    def remove(self, gateway: TheGateway, name: FromPath[str]) -> Destination:
        """Delete a destination; answers what it was."""
        return gateway.destinations.delete(name)
