"""`/api/trace`: a study's journey through the gateway."""

from litestar import get
from litestar.params import FromPath

from actors.api.journey import Journey
from actors.api.routes.common import TheGateway


@get("/api/trace/{study_instance_uid:str}", sync_to_thread=True, tags=["Trace"])
def trace(gateway: TheGateway, study_instance_uid: FromPath[str]) -> Journey:
    """A study's journey with times: associations, groups, jobs, uploads, starts and ends."""
    return gateway.trace.of(study_instance_uid)
