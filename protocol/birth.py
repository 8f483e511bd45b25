"""What an actor is born with: its name, and the descriptors that it inherits from the supervisor."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

_PREFIX = "DICOM_ADAPTER_"


class Birth(msgspec.Struct, frozen=True, kw_only=True):
    """The inheritance of one process.

    Args:
        name: the actor's name, `KIND` or `KIND-NUMBER`.
        runtime: directory of the bus, of `settings.json` and of the supervisor's control socket.
        lifeline: SOCK_SEQPACKET pair with the supervisor: Ready, Heartbeat, Draining up; Drain down; it closes when
            either side is gone.
        alive: reading end of a pipe that closes when the supervisor is gone; handed on to what must outlive the
            actor, but not the supervisor.
        board: see `protocol.board`.
        row: the receiver's row on the board, -1 for others.
        listeners: listening sockets, for receivers and the API.
    """

    name: str
    runtime: str
    lifeline: int
    alive: int
    board: int
    row: int = -1
    listeners: tuple[int, ...] = ()

    @property
    def kind(self) -> str:
        """The kind of actor."""
        return self.name.partition("-")[0]

    @property
    def settings_file(self) -> Path:
        """The effective settings, as the supervisor loaded them."""
        return settings_file(self.runtime)

    def environment(self) -> dict[str, str]:
        """As environment variables for the new process."""
        return {
            f"{_PREFIX}NAME": self.name,
            f"{_PREFIX}RUNTIME": self.runtime,
            f"{_PREFIX}LIFELINE": str(self.lifeline),
            f"{_PREFIX}ALIVE": str(self.alive),
            f"{_PREFIX}BOARD": str(self.board),
            f"{_PREFIX}ROW": str(self.row),
            f"{_PREFIX}LISTENERS": ",".join(map(str, self.listeners)),
        }

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All descriptors that the new process inherits."""
        return (self.lifeline, self.alive, self.board, *self.listeners)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Birth":
        """Read it in the new process.

        Raises:
            KeyError: the process was not started by the supervisor.
        """
        listeners = environ[f"{_PREFIX}LISTENERS"]
        return cls(
            name=environ[f"{_PREFIX}NAME"],
            runtime=environ[f"{_PREFIX}RUNTIME"],
            lifeline=int(environ[f"{_PREFIX}LIFELINE"]),
            alive=int(environ[f"{_PREFIX}ALIVE"]),
            board=int(environ[f"{_PREFIX}BOARD"]),
            row=int(environ[f"{_PREFIX}ROW"]),
            listeners=tuple(int(fd) for fd in listeners.split(",") if fd),
        )


def settings_file(runtime: str | Path) -> Path:
    """Where the supervisor keeps the effective settings for its actors."""
    return Path(runtime) / "settings.json"


def control_socket(runtime: str | Path) -> Path:
    """The supervisor's control socket: stream, one MessagePack request with a four-byte length, one answer."""
    return Path(runtime) / "supervisor.sock"
