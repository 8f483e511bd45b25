"""What the supervisor and the actors say to each other, and what the command line asks the supervisor."""

import msgspec

from protocol.messages.base import Message

# Supervisor ↔ actor, over the socket pair that the actor was born with.


class Ready(Message, frozen=True, kw_only=True):
    """The actor has replayed its unfinished work and takes part."""


class Heartbeat(Message, frozen=True, kw_only=True):
    """The actor's main loop turned.

    Args:
        detail: what it is busy with, for people.
        quiet_seconds: how long it may be silent from now on, when that is longer than usual.
    """

    detail: str = ""
    quiet_seconds: float = 0.0


class Draining(Message, frozen=True, kw_only=True):
    """The actor takes nothing new and ends when what it has is done."""


class Drain(Message, frozen=True, kw_only=True):
    """Finish what you have within so many seconds, then exit.

    Args:
        seconds: how long it may take.
        gateway_stops: the whole gateway ends, not this actor alone.
    """

    seconds: float
    gateway_stops: bool = False


class SettingsChanged(Message, frozen=True, kw_only=True):
    """The settings file in the runtime directory was replaced."""


# Command line → supervisor, over its control socket.


class GetStatus(Message, frozen=True, kw_only=True):
    """Ask for `Status`."""


class RestartActors(Message, frozen=True, kw_only=True):
    """Replace the actors of a kind, or one by name, and answer when the successors are ready."""

    target: str


class ActorStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One actor, as `status --json` shows it."""

    name: str
    kind: str
    pid: int | None
    state: str
    restarts: int
    uptime_seconds: float
    last_heartbeat_seconds: float
    detail: str = ""


class StorageStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The disk as the guardian sees it."""

    state: str
    free_bytes: int
    reserved_bytes: int


class Status(Message, frozen=True, kw_only=True):
    """Answer to `GetStatus`."""

    actors: tuple[ActorStatus, ...]
    active_associations: int
    storage: StorageStatus
    supervisor_pid: int = 0
