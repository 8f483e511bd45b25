"""A real API process for tests, with stand-ins for the processes that it talks to."""

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from protocol import control, messages
from protocol.birth import control_socket
from protocol.board import Board
from protocol.bus import Bus, Server
from protocol.channels import (
    EXPORTER_COMMANDS,
    KINDS,
    PLATFORM_COMMANDS,
    PROCESSOR_COMMANDS,
    RETRIEVER_COMMANDS,
    SUBMITTER_COMMANDS,
    actors_of,
)
from protocol.ledger import Ledger
from tests.actors.launcher import Launcher, RunningActor
from tests.peers import free_port


class Owners:
    """Stands in for the owners of what the API asks: records each command, and answers as it is told.

    Args:
        bus: bound to the runtime directory of the API.
    """

    def __init__(self, bus: Bus) -> None:
        self.commands: list[messages.Message] = []
        self.answer: Callable[[messages.Message], messages.Message] = self.done
        self._bus = bus
        self._wake = os.eventfd(0)
        channels = (
            *(PROCESSOR_COMMANDS, SUBMITTER_COMMANDS, PLATFORM_COMMANDS),
            *(RETRIEVER_COMMANDS, EXPORTER_COMMANDS),
        )
        self._servers = [bus.server(channel, channel.binder) for channel in channels]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @staticmethod
    def done(_: messages.Message) -> messages.Message:
        """The answer unless told otherwise."""
        return messages.Done(affected=1)

    def take(self) -> list[messages.Message]:
        """The commands since the last call."""
        taken, self.commands = self.commands, []
        return taken

    def close(self) -> None:
        """Stop answering."""
        os.eventfd_write(self._wake, 1)
        self._thread.join(10.0)
        self._bus.close()
        os.close(self._wake)

    def _serve(self) -> None:
        waiting = [self._wake, *(server.fd for server in self._servers)]
        while True:
            ready = select.select(waiting, [], [], 5.0)[0]
            if self._wake in ready:
                return
            for server in self._servers:
                self._answer_all(server)

    def _answer_all(self, server: Server) -> None:
        while (command := server.receive()) is not None:
            self.commands.append(command.message)
            command.answer(self.answer(command.message))


class Supervisor:
    """Stands in for the supervisor's control socket: answers every request with `status`.

    Args:
        runtime: the runtime directory.
        status: the answer; None closes the connection without one.
    """

    def __init__(self, runtime: Path, status: messages.Message | None = None) -> None:
        self.status = status
        self.requests: list[messages.Message] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(control_socket(runtime)))
        self._socket.listen(16)
        self._path = control_socket(runtime)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10.0)
        self._socket.close()
        self._path.unlink()

    def _serve(self) -> None:
        decode = messages.decoder(messages.ControlRequest).decode
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    length = control.LENGTH.unpack(connection.recv(4, socket.MSG_WAITALL))[0]
                    self.requests.append(decode(connection.recv(length, socket.MSG_WAITALL)))
                    if self.status is not None:
                        connection.sendall(control.frame(self.status))


class Surroundings:
    """An API that runs while the block lasts.

    Args:
        directory: for its spool and ledger.
        sets: settings as for `--set`.
        owners: False leaves processor, submitter and platform away.
        environment: variables for the process.
    """

    def __init__(
        self, directory: Path, *sets: str, owners: bool = True, environment: dict[str, str] | None = None
    ) -> None:
        self.port = free_port()
        self.launcher = Launcher(directory, f"DicomAdapter.api.port={self.port}", *sets, environment=environment)
        self.api: RunningActor = self.launcher.start("api")
        self.rest = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30.0)
        settings = self.launcher.settings
        self.owners = Owners(Bus(self.launcher.runtime, settings)) if owners else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.rest.close()
        if self.owners is not None:
            self.owners.close()
        self.launcher.__exit__(kind, error, trace)

    @property
    def board(self) -> Board:
        """The board that it sees."""
        return self.launcher.board

    @property
    def access(self) -> Path:
        """The file that receivers admit by."""
        return self.launcher.spool.access

    def open_ledger(self) -> Ledger:
        """Its ledger, for what other processes would write."""
        return Ledger(self.launcher.settings.database)

    def all_running(self, *without: str) -> messages.Status:
        """What the supervisor answers when every actor runs, but those named are starting."""
        return messages.Status(
            actors=tuple(
                messages.ActorStatus(
                    name=name,
                    kind=kind,
                    pid=1,
                    state="starting" if name in without else "running",
                    restarts=0,
                    uptime_seconds=1.0,
                    last_heartbeat_seconds=0.1,
                )
                for kind in KINDS
                for name in actors_of(kind, self.launcher.settings)
            ),
            active_associations=0,
            storage=messages.StorageStatus(state="open", free_bytes=1, reserved_bytes=0),
        )
