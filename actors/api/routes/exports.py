"""`/api/exports`: results on their way to destinations, and a person's decisions on them."""

from typing import Annotated, Any

from litestar import Controller, get, post
from litestar.params import FromPath, QueryParameter, RawBody

from actors.api.exports import ExportDetail, ExportSummary, Probed
from actors.api.jobs import Affected
from actors.api.openapi import body
from actors.api.routes.common import Limit, Offset, OnlyKnownQuery, TheGateway
from protocol.ledger import PAGE_ROWS

_FILTER: dict[str, Any] = {"destination": "MYPACS"}
_Filtered = body(_FILTER, about="destination, as in the list; {} means all there are.")
_Destination = body({"destination": "MYPACS"}, about="A destination's name, or dicomweb:URL.")


class ExportController(Controller):
    """Export tasks."""

    path = "/api/exports"
    tags = ("Exports",)
    middleware = (OnlyKnownQuery(),)

    @get(sync_to_thread=True)
    def list_some(  # noqa: PLR0917 # Litestar passes them by name
        self,
        gateway: TheGateway,
        of_state: Annotated[str, QueryParameter(name="state", description="Only of this state.")] = "",
        destination: Annotated[str, QueryParameter(description="Only for this destination.")] = "",
        job_id: Annotated[str, QueryParameter(name="jobId", description="Only of this job.")] = "",
        limit: Limit = PAGE_ROWS,
        offset: Offset = 0,
    ) -> list[ExportSummary]:
        """Export tasks, the newest first."""
        return gateway.exports.select(of_state, destination, job_id, limit, offset)

    @get("/{task_id:str}", sync_to_thread=True)
    def get_one(self, gateway: TheGateway, task_id: FromPath[str]) -> ExportDetail:
        """One task, with its deliveries."""
        return gateway.exports.one(task_id)

    @post("/retry", status_code=200, sync_to_thread=True, operation_class=_Filtered)
    def retry_many(self, gateway: TheGateway, body: RawBody) -> Affected:
        """Try tasks again that failed, or wait for their next try."""
        return Affected(affected=gateway.exports.retry_all(body))

    @post("/cancel", status_code=200, sync_to_thread=True, operation_class=_Filtered)
    def cancel_many(self, gateway: TheGateway, body: RawBody) -> Affected:
        """Give tasks up that are not over, or failed."""
        return Affected(affected=gateway.exports.cancel_all(body))

    @post("/echo", status_code=200, sync_to_thread=True, operation_class=_Destination)
    def echo(self, gateway: TheGateway, body: RawBody) -> Probed:
        """Ask a destination whether it is there, by C-ECHO or QIDO-RS; 409 tells what was wrong."""
        return gateway.exports.probe(body)

    @post("/{task_id:str}/retry", status_code=200, sync_to_thread=True)
    def retry_one(self, gateway: TheGateway, task_id: FromPath[str]) -> Affected:
        """Try a task again; 409 when it neither failed nor waits."""
        return Affected(affected=gateway.exports.retry(task_id))

    @post("/{task_id:str}/cancel", status_code=200, sync_to_thread=True)
    def cancel_one(self, gateway: TheGateway, task_id: FromPath[str]) -> Affected:
        """Give a task up; 409 when it is over."""
        return Affected(affected=gateway.exports.cancel(task_id))
