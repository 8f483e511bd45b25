"""`/api/config/pipeline`: the commands that the embedded platform runs."""

from typing import Any

from litestar import Controller, Response, delete, get, post, put
from litestar.params import FromPath, RawBody

from actors.api.entities import Pipeline
from actors.api.openapi import body
from actors.api.routes.common import CONFIG_PATH, TheGateway, created

_EXAMPLE: dict[str, Any] = {
    "name": "covid",
    "command": ["/opt/covid/run", "{input}", "{output}"],
    "exports": ["MYPACS"],
    "timeoutSeconds": 3600,
}
_Described = body(
    _EXAMPLE, entity="Pipeline", about="pipelineId is made here; exports, user and timeoutSeconds may be left out."
)


class PipelineController(Controller):
    """The commands that the embedded platform runs."""

    path = f"{CONFIG_PATH}/pipeline"
    tags = ("Pipelines",)

    @get(sync_to_thread=True)
    def list_all(self, gateway: TheGateway) -> list[Pipeline]:
        """All pipelines."""
        return gateway.pipelines.all()

    @get("/{name:str}", sync_to_thread=True)
    def get_one(self, gateway: TheGateway, name: FromPath[str]) -> Pipeline:
        """One pipeline, found by its ID, else by its name."""
        return gateway.pipelines.one(name)

    @post(sync_to_thread=True, operation_class=_Described)
    def create(self, gateway: TheGateway, body: RawBody) -> Response[Pipeline]:
        """Create a pipeline; 400 tells every error."""
        entity = gateway.pipelines.create(body)
        return created(entity, self.path, entity.pipeline_id)

    @put("/{name:str}", sync_to_thread=True, operation_class=_Described)
    def replace(self, gateway: TheGateway, name: FromPath[str], body: RawBody) -> Pipeline:
        """Replace all of a pipeline but its key."""
        return gateway.pipelines.replace(name, body)

    @delete("/{name:str}", status_code=200, sync_to_thread=True)
    def remove(self, gateway: TheGateway, name: FromPath[str]) -> Pipeline:
        """Delete a pipeline; answers what it was."""
        return gateway.pipelines.delete(name)
