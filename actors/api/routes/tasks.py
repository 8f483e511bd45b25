"""`/api/tasks`: the Results Service as Clara's, for pipelines that register results, and for other export agents."""

from typing import Annotated, Any

from litestar import Controller, Response, get, post, put
from litestar.params import FromPath, QueryParameter, RawBody

from actors.api.openapi import body
from actors.api.routes.common import TheGateway, created
from actors.api.tasks import ResultsTask
from protocol.ledger import PAGE_ROWS

_TASK: dict[str, Any] = {
    "jobId": "0a1f6c1e-63c5-4a55-93c0-0d4c2ad0c4a1",
    "payloadId": "1b2f6c1e-63c5-4a55-93c0-0d4c2ad0c4a1",
    "pipelineId": "2c3f6c1e-63c5-4a55-93c0-0d4c2ad0c4a1",
    "agent": "ClaraSCU",
    "parameters": '"MYPACS"',
    "uris": ["result-1.dcm", "result-2.dcm"],
}
_Registered = body(_TASK, about="parameters is a JSON text; payloadId and pipelineId may be left out.")
_Failed = body({"RetryLater": True}, about="RetryLater: whether the task is to be offered again.")


class TaskController(Controller):
    """The Results Service."""

    path = "/api/tasks"
    tags = ("Results Service",)

    @post(sync_to_thread=True, operation_class=_Registered)
    def register(self, gateway: TheGateway, body: RawBody) -> Response[ResultsTask]:
        """Register files of a job's payload to be exported; 400 tells every error."""
        entity = gateway.tasks.register(body)
        return created(entity, self.path, entity.task_id)

    @get("/{task_id:str}", sync_to_thread=True)
    def get_one(self, gateway: TheGateway, task_id: FromPath[str]) -> ResultsTask:
        """One task."""
        return gateway.tasks.one(task_id)

    @get("/{agent:str}/pending", sync_to_thread=True)
    def list_pending(
        self,
        gateway: TheGateway,
        agent: FromPath[str],
        size: Annotated[int, QueryParameter(ge=1, le=PAGE_ROWS, description="At most so many.")] = 10,
    ) -> list[ResultsTask]:
        """Tasks that wait for an agent that is no part of this system; they are its own for ten minutes."""
        return gateway.tasks.pending(agent, size)

    @put("/success/{task_id:str}", sync_to_thread=True)
    def report_success(self, gateway: TheGateway, task_id: FromPath[str]) -> ResultsTask:
        """A task's files were exported."""
        return gateway.tasks.succeeded(task_id)

    @put("/failure/{task_id:str}", sync_to_thread=True, operation_class=_Failed)
    def report_failure(self, gateway: TheGateway, task_id: FromPath[str], body: RawBody) -> ResultsTask:
        """A task's files could not be exported."""
        return gateway.tasks.failed(task_id, body)
