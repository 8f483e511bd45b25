"""The web application: all routes behind the gate, with paths in any case and every error as problem details."""

import importlib.metadata

from litestar import Litestar
from litestar.di import Provide
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, ControllerRouterHandler, Receive, Scope, Send

from actors.api import openapi
from actors.api.gateway import Gateway
from actors.api.paths import AnyCase, Template, decode_keys
from actors.api.problems import answer_with_problem
from actors.api.routes.ae_titles import ClaraAeTitleController
from actors.api.routes.destinations import DestinationController
from actors.api.routes.exports import ExportController
from actors.api.routes.health import live, metrics, status
from actors.api.routes.inference import InferenceController
from actors.api.routes.jobs import JobController
from actors.api.routes.page import page
from actors.api.routes.pipelines import PipelineController
from actors.api.routes.quarantine import QuarantineController
from actors.api.routes.sources import SourceController
from actors.api.routes.storage import storage
from actors.api.routes.tasks import TaskController
from actors.api.routes.trace import trace
from actors.api.security import MAX_BODY_BYTES, Gate
from protocol.logs import Repeats


class _KeysDecoded(ASGIMiddleware):
    """Decodes the keys of a path after its route was found; see `actors.api.paths`."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        scope["path_params"] = decode_keys(scope["path_params"])
        await next_app(scope, receive, send)


def application(gateway: Gateway, refused: Repeats) -> ASGIApp:
    """The whole application as ASGI.

    Args:
        gateway: what the routes work with.
        refused: writes that a peer was refused.
    """
    routes: list[ControllerRouterHandler] = [
        ClaraAeTitleController,
        SourceController,
        DestinationController,
        PipelineController,
        InferenceController,
        JobController,
        ExportController,
        TaskController,
        QuarantineController,
        storage,
        trace,
        live,
        status,
        metrics,
        page,
    ]
    app = Litestar(
        route_handlers=routes,
        dependencies={"gateway": Provide(lambda: gateway, sync_to_thread=False)},
        exception_handlers={Exception: answer_with_problem},
        middleware=[_KeysDecoded()],
        openapi_config=openapi.configuration(_version()),
        request_max_body_size=MAX_BODY_BYTES,
        logging_config=None,
        debug=False,
    )
    return Gate(AnyCase(app, templates(app)), gateway.settings, refused)


def templates(app: Litestar) -> list[Template]:
    """The shapes of all routes; a key is None."""
    return [
        tuple(None if not isinstance(part, str) else part for part in route.path_components) for route in app.routes
    ]


def _version() -> str:
    try:
        return importlib.metadata.version("dicom-adapter")
    except importlib.metadata.PackageNotFoundError:
        return "0"  # run from a source tree
