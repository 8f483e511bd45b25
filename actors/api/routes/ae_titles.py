"""`/api/config/claraaetitle`: the AE titles that this gateway answers to."""

from typing import Any

from litestar import Controller, Response, delete, get, post, put
from litestar.params import FromPath, RawBody

from actors.api.entities import ClaraAeTitle
from actors.api.openapi import body
from actors.api.routes.common import CONFIG_PATH, TheGateway, created

_EXAMPLE: dict[str, Any] = {
    "name": "COVIDAET",
    "aeTitle": "COVIDAET",
    "overwriteSameInstance": False,
    "ignoredSopClasses": ["1.2.840.10008.5.1.4.1.1.7"],
    "processorSettings": {"timeout": 5, "priority": "higher", "pipeline-covid": "0f7f3a52-6a0c-4c5c-9a43-6a3ae1d2ab01"},
}
_Described = body(
    _EXAMPLE,
    entity="ClaraAeTitle",
    about="name, ignoredSopClasses, overwriteSameInstance and processor may be left out.",
)


class ClaraAeTitleController(Controller):
    """The AE titles that this gateway answers to."""

    path = f"{CONFIG_PATH}/claraaetitle"
    tags = ("AE titles",)

    @get(sync_to_thread=True)
    def list_all(self, gateway: TheGateway) -> list[ClaraAeTitle]:
        """All AE titles."""
        return gateway.ae_titles.all()

    @get("/{name:str}", sync_to_thread=True)
    def get_one(self, gateway: TheGateway, name: FromPath[str]) -> ClaraAeTitle:
        """One AE title, found by its name, else by its AE title."""
        return gateway.ae_titles.one(name)

    @post(sync_to_thread=True, operation_class=_Described)
    def create(self, gateway: TheGateway, body: RawBody) -> Response[ClaraAeTitle]:
        """Create an AE title; 400 tells every error."""
        entity = gateway.ae_titles.create(body)
        return created(entity, self.path, entity.name)

    @put("/{name:str}", sync_to_thread=True, operation_class=_Described)
    def replace(self, gateway: TheGateway, name: FromPath[str], body: RawBody) -> ClaraAeTitle:
        """Replace all of an AE title but its key."""
        return gateway.ae_titles.replace(name, body)

    @delete("/{name:str}", status_code=200, sync_to_thread=True)
    def remove(self, gateway: TheGateway, name: FromPath[str]) -> ClaraAeTitle:
        """Delete an AE title; answers what it was."""
        return gateway.ae_titles.delete(name)
