"""`/api/quarantine`: instances that could not be described, and a person's decisions on them."""

from litestar import Controller, get, post
from litestar.params import FromPath

from actors.api.jobs import Affected
from actors.api.quarantine import QuarantinedInstance
from actors.api.routes.common import Limit, Offset, OnlyKnownQuery, TheGateway
from protocol.ledger import PAGE_ROWS


class QuarantineController(Controller):
    """The quarantine."""

    path = "/api/quarantine"
    tags = ("Quarantine",)
    middleware = (OnlyKnownQuery(),)

    @get(sync_to_thread=True)
    def list_some(self, gateway: TheGateway, limit: Limit = PAGE_ROWS, offset: Offset = 0) -> list[QuarantinedInstance]:
        """What waits for a decision, the newest first."""
        return gateway.quarantine.select(limit, offset)

    @post("/{instance_id:str}/release", status_code=200, sync_to_thread=True)
    def release(self, gateway: TheGateway, instance_id: FromPath[str]) -> Affected:
        """Process an instance as well as can be."""
        return Affected(affected=gateway.quarantine.release(instance_id))

    @post("/{instance_id:str}/discard", status_code=200, sync_to_thread=True)
    def discard(self, gateway: TheGateway, instance_id: FromPath[str]) -> Affected:
        """Give an instance up; its file may then be deleted."""
        return Affected(affected=gateway.quarantine.discard(instance_id))
