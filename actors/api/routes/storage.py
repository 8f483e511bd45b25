"""`/api/storage`: how much room there is, and what holds the rest."""

from litestar import get

from actors.api.routes.common import TheGateway
from actors.api.storage import StorageUse


@get("/api/storage", sync_to_thread=True, tags=["Storage"])
def storage(gateway: TheGateway) -> StorageUse:
    """How much room the spool has, and which AE titles and states hold the rest."""
    return gateway.storage.use()
