"""`/health` and `/metrics`: for those who watch over the gateway.

Health is asked in threads of its own, so that it answers also when all others wait for the ledger.
"""

import asyncio

from litestar import MediaType, Response, get

from actors.api.health import Health, health, is_healthy
from actors.api.routes.common import TheGateway

METRICS_MEDIA_TYPE = "text/plain; version=0.0.4"  # Litestar adds the character set


@get(["/health/live", "/health/ready"], media_type=MediaType.TEXT, tags=["Health"])
async def live(gateway: TheGateway) -> Response[str]:
    """`Healthy` when every actor runs, else 503 and `Unhealthy`."""
    loop = asyncio.get_running_loop()
    healthy = await loop.run_in_executor(gateway.watchers, is_healthy, gateway.runtime, gateway.settings())
    return Response("Healthy", status_code=200) if healthy else Response("Unhealthy", status_code=503)


@get("/health/status", tags=["Health"])
async def status(gateway: TheGateway) -> Health:
    """Associations now, and the state of each service."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(gateway.watchers, health, gateway.runtime, gateway.board)


@get("/metrics", media_type=METRICS_MEDIA_TYPE, sync_to_thread=True, tags=["Health"])
def metrics(gateway: TheGateway) -> bytes:
    """Metrics in Prometheus' text format."""
    return gateway.metrics.text()
