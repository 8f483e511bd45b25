"""`/` and `/docs`: the page that tells people what there is."""

from litestar import MediaType, Request, get
from litestar.datastructures import State

from actors.api import openapi


@get(["/", "/docs"], media_type=MediaType.HTML, include_in_schema=False, sync_to_thread=True)
def page(request: Request[None, None, State]) -> str:
    """All endpoints with an example call each."""
    return openapi.page(request.app, str(request.base_url).rstrip("/"))
