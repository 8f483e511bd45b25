"""Whether the gateway works: what the supervisor says of its actors, in the original's words."""

from typing import Annotated

import msgspec
from msgspec import Meta

from protocol import channels, control
from protocol.board import Board
from protocol.config import Settings
from protocol.errors import AdapterError
from protocol.messages import ActorStatus

RUNNING = "running"
_DRAINING = "draining"
_TIMEOUT_SECONDS = 3.0

# The original's services, in its order, and the kinds of actors that do their work here; ours follow.
SERVICES = (
    ("SpaceReclaimerService", "guardian"),
    ("JobSubmissionService", "submitter"),
    ("DataRetrievalService", "retriever"),
    ("ScpService", "receiver"),
    ("ScuExportService", "exporter"),
    ("DicomWebExportService", "exporter"),
    ("processor", "processor"),
    ("extractor", "extractor"),
    ("platform", "platform"),
    ("api", "api"),
)


class Health(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The original's shape of `/health/status`."""

    active_dimse_connections: Annotated[int, Meta(description="Associations over all receivers.", examples=[2])]
    services: Annotated[
        dict[str, str],
        Meta(
            description="Each Unknown, Stopped, Running or Cancelled.",
            examples=[{"ScpService": "Running", "ScuExportService": "Unknown"}],
        ),
    ]


def _actors(runtime: str) -> tuple[ActorStatus, ...]:
    """The supervisor's actors; none when it does not answer."""
    try:
        return control.status(runtime, _TIMEOUT_SECONDS).actors
    except AdapterError:
        return ()


def is_healthy(runtime: str, settings: Settings) -> bool:
    """Whether every actor that belongs to the gateway runs; a predecessor that still drains does not count."""
    running = {actor.name for actor in _actors(runtime) if actor.state == RUNNING}
    return all(name in running for kind in channels.KINDS for name in channels.actors_of(kind, settings))


def health(runtime: str, board: Board) -> Health:
    """The state of each service."""
    actors = _actors(runtime)
    return Health(
        active_dimse_connections=board.active_associations,
        services={service: _state([a.state for a in actors if a.kind == kind]) for service, kind in SERVICES},
    )


def _state(states: list[str]) -> str:
    if not states:
        return "Unknown"
    if RUNNING in states:
        return "Running"
    return "Cancelled" if all(state == _DRAINING for state in states) else "Stopped"
