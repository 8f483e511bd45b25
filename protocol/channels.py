"""Who says what to whom: one table of endpoints, binders, senders, and message unions."""

import enum
from typing import Any

import msgspec

from protocol import messages
from protocol.config import Settings

# The kinds of actors in flow order; a stop goes down this list.
KINDS = ("receiver", "extractor", "processor", "submitter", "platform", "retriever", "exporter", "guardian", "api")


def actors_of(kind: str, settings: Settings) -> tuple[str, ...]:
    """The names of the actors of a kind: the kind itself, or numbered when there may be several."""
    if kind in ("receiver", "extractor"):
        return tuple(f"{kind}-{number}" for number in range(1, settings.dicom.scp.receivers + 1))
    return (kind,)


class Pattern(enum.Enum):
    """How a channel's sockets behave."""

    PIPELINE = "pipeline"  # PUSH → PULL: one of the binders gets each message; full queues drop
    COMMAND = "command"  # DEALER → ROUTER: each message is answered


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table.

    Args:
        name: of the channel, and of its endpoint's file.
        pattern: see `Pattern`.
        binder: the kind that binds and receives; every actor of the kind has an endpoint of its own.
        senders: the kinds that connect.
        accepts: union of the messages that the binder takes; it has a `handle_…` method for each.
    """

    name: str
    pattern: Pattern
    binder: str
    senders: tuple[str, ...]
    accepts: Any

    def endpoints(self, settings: Settings) -> tuple[str, ...]:
        """Names of the endpoints' files: one for each actor of the binder's kind."""
        return tuple(self.endpoint_of(actor) for actor in actors_of(self.binder, settings))

    def endpoint_of(self, actor: str) -> str:
        """The endpoint's file of one binder."""
        return f"{self.name}.{actor}"


INSTANCES = Channel(
    name="instances",
    pattern=Pattern.PIPELINE,
    binder="extractor",
    senders=("receiver", "processor"),
    accepts=messages.ToExtractor,
)
DESCRIPTIONS = Channel(
    name="descriptions",
    pattern=Pattern.PIPELINE,
    binder="processor",
    senders=("extractor",),
    accepts=messages.ToProcessor,
)
PROCESSOR_COMMANDS = Channel(
    name="processor-commands",
    pattern=Pattern.COMMAND,
    binder="processor",
    senders=("api",),
    accepts=messages.ProcessorCommand,
)
JOBS = Channel(
    name="jobs",
    pattern=Pattern.PIPELINE,
    binder="submitter",
    senders=("processor", "retriever"),
    accepts=messages.ToSubmitter,
)
SUBMITTER_COMMANDS = Channel(
    name="submitter-commands",
    pattern=Pattern.COMMAND,
    binder="submitter",
    senders=("api", "retriever"),
    accepts=messages.SubmitterCommand,
)
PLATFORM_COMMANDS = Channel(
    name="platform-commands",
    pattern=Pattern.COMMAND,
    binder="platform",
    senders=("submitter", "api"),
    accepts=messages.PlatformCommand,
)
RETRIEVER_COMMANDS = Channel(
    name="retriever-commands",
    pattern=Pattern.COMMAND,
    binder="retriever",
    senders=("api",),
    accepts=messages.RetrieverCommand,
)
RESULTS = Channel(
    name="results",
    pattern=Pattern.PIPELINE,
    binder="exporter",
    senders=("platform",),
    accepts=messages.ToExporter,
)
EXPORTER_COMMANDS = Channel(
    name="exporter-commands",
    pattern=Pattern.COMMAND,
    binder="exporter",
    senders=("api",),
    accepts=messages.ExporterCommand,
)

CHANNELS = (
    INSTANCES,
    DESCRIPTIONS,
    PROCESSOR_COMMANDS,
    JOBS,
    SUBMITTER_COMMANDS,
    PLATFORM_COMMANDS,
    RETRIEVER_COMMANDS,
    RESULTS,
    EXPORTER_COMMANDS,
)


def bound_by(kind: str) -> tuple[Channel, ...]:
    """The channels that an actor of this kind binds."""
    return tuple(channel for channel in CHANNELS if channel.binder == kind)
