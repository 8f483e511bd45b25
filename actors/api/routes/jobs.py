"""`/api/jobs`: jobs on their way to the platform, and a person's decisions on those that faulted or failed."""

from typing import Annotated, Any

from litestar import Controller, get, post
from litestar.params import FromPath, QueryParameter, RawBody

from actors.api.jobs import Affected, JobDetail, JobSummary
from actors.api.openapi import body
from actors.api.routes.common import Limit, Offset, OnlyKnownQuery, TheGateway
from protocol.ledger import PAGE_ROWS

_FILTER: dict[str, Any] = {"aeTitle": "COVIDAET", "since": "2024-01-31T00:00:00Z"}
_ABOUT = "aeTitle, pipelineId, since, until (times of creation); {} means all that faulted."
_Discarded = body(_FILTER, about=f"{_ABOUT} With platformState Succeeded or Failed: what ended jobs have left instead.")
_Retried = body(_FILTER, about=f"{_ABOUT} With platformState Failed: jobs that failed on the platform instead.")


class JobController(Controller):
    """Jobs."""

    path = "/api/jobs"
    tags = ("Jobs",)
    middleware = (OnlyKnownQuery(),)

    @get(sync_to_thread=True)
    def list_some(  # noqa: PLR0917 # Litestar passes them by name
        self,
        gateway: TheGateway,
        of_state: Annotated[str, QueryParameter(name="state", description="Only of this state.")] = "",
        platform_state: Annotated[
            str, QueryParameter(name="platformState", description="Only those of which the platform says this.")
        ] = "",
        ae_title: Annotated[str, QueryParameter(name="aeTitle", description="Only of this AE title.")] = "",
        pipeline_id: Annotated[str, QueryParameter(name="pipelineId", description="Only for this pipeline.")] = "",
        limit: Limit = PAGE_ROWS,
        offset: Offset = 0,
    ) -> list[JobSummary]:
        """Jobs, the newest first."""
        return gateway.jobs.select(
            limit,
            offset,
            state=of_state,
            platform_state=platform_state,
            ae_title=ae_title,
            pipeline_id=pipeline_id,
        )

    @get("/{job_id:str}", sync_to_thread=True)
    def get_one(self, gateway: TheGateway, job_id: FromPath[str]) -> JobDetail:
        """One job, with its steps and its run on the embedded platform."""
        return gateway.jobs.one(job_id)

    @post("/retry", status_code=200, sync_to_thread=True, operation_class=_Retried)
    def retry_many(self, gateway: TheGateway, body: RawBody) -> Affected:
        """Submit faulted jobs again; with `platformState` Failed, have those that failed on the platform run again."""
        return Affected(affected=gateway.jobs.retry_all(body))

    @post("/discard", status_code=200, sync_to_thread=True, operation_class=_Discarded)
    def discard_many(self, gateway: TheGateway, body: RawBody) -> Affected:
        """Give faulted jobs up, whose payloads may then be deleted; with `platformState`, what ended ones have left."""
        return Affected(affected=gateway.jobs.discard_all(body))

    @post("/{job_id:str}/retry", status_code=200, sync_to_thread=True)
    def retry_one(self, gateway: TheGateway, job_id: FromPath[str]) -> Affected:
        """Submit a faulted job again, or have a failed one run again; 409 when it is neither, or cannot be."""
        return Affected(affected=gateway.jobs.retry(job_id))

    @post("/{job_id:str}/discard", status_code=200, sync_to_thread=True)
    def discard_one(self, gateway: TheGateway, job_id: FromPath[str]) -> Affected:
        """Give a faulted job up, or what an ended one has left; 409 when it is neither, or an export waits for it."""
        return Affected(affected=gateway.jobs.discard(job_id))
