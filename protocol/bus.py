"""The only code that touches ZeroMQ: senders, receivers, and commands with an answer, over ipc endpoints."""

import contextlib
import fcntl
import os
import secrets
import time
from pathlib import Path
from typing import Any

import msgspec
import zmq

from protocol import messages
from protocol.channels import Channel, Pattern
from protocol.config import Settings
from protocol.errors import CannotCreateError, ConfigurationError, RefusedError, UnavailableError

_HIGH_WATER_MARK = 10_000
_LONGEST_PATH = 107  # sun_path, less its terminating NUL


class Bus:
    """One process's access to the channels.

    Args:
        runtime: the 0700 directory of the endpoints' files.
        settings: tell how many binders a channel has.
    """

    def __init__(self, runtime: Path, settings: Settings) -> None:
        self._runtime = runtime
        self._settings = settings
        self._context = zmq.Context()
        self._locks: list[int] = []

    def sender(self, channel: Channel) -> "Sender":
        """A socket that sends to one of the channel's binders at a time."""
        assert channel.pattern is Pattern.PIPELINE
        socket = self._socket(zmq.PUSH)
        for endpoint in channel.endpoints(self._settings):
            socket.connect(self._address(endpoint))
        return Sender(socket)

    def receiver(self, channel: Channel, actor: str) -> "Receiver":
        """Bind this actor's endpoint of a pipeline channel."""
        assert channel.pattern is Pattern.PIPELINE
        return Receiver(self._bind(zmq.PULL, channel, actor), channel.accepts)

    def server(self, channel: Channel, actor: str) -> "Server":
        """Bind this actor's endpoint of a command channel."""
        assert channel.pattern is Pattern.COMMAND
        return Server(self._bind(zmq.ROUTER, channel, actor), channel.accepts)

    def client(self, channel: Channel) -> "Client":
        """A socket for commands; it belongs to the thread that uses it."""
        assert channel.pattern is Pattern.COMMAND
        socket = self._socket(zmq.DEALER)
        for endpoint in channel.endpoints(self._settings):
            socket.connect(self._address(endpoint))
        return Client(socket, channel.binder)

    def close(self) -> None:
        """Close all sockets; what is queued is dropped, since the sweeps will find the work."""
        self._context.destroy(linger=0)
        for fd in self._locks:
            os.close(fd)
        self._locks.clear()

    def _socket(self, kind: int) -> "zmq.Socket[bytes]":
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.SNDHWM, _HIGH_WATER_MARK)
        socket.setsockopt(zmq.RCVHWM, _HIGH_WATER_MARK)
        socket.setsockopt(zmq.RECONNECT_IVL, 20)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        return socket

    def _bind(self, kind: int, channel: Channel, actor: str) -> "zmq.Socket[bytes]":
        endpoint = channel.endpoint_of(actor)
        # A second bind would silently steal the endpoint from a living predecessor.
        fd = os.open(self._runtime / f"{endpoint}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise CannotCreateError(
                f"the endpoint {endpoint} in {self._runtime} is held by another process: "
                "wait until it has ended, or end it"
            ) from None
        self._locks.append(fd)
        socket = self._socket(kind)
        if kind == zmq.ROUTER:
            socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.bind(self._address(endpoint))
        return socket

    def _address(self, endpoint: str) -> str:
        path = str(self._runtime / endpoint)
        if len(path.encode()) > _LONGEST_PATH:
            raise ConfigurationError(
                f"the runtime directory's path is too long for a socket ({path}): set RUNTIME_DIRECTORY, or place "
                "the database, in a shorter one"
            )
        return f"ipc://{path}"


class Sender:
    """Sends facts without ever blocking."""

    def __init__(self, socket: "zmq.Socket[bytes]") -> None:
        self._socket = socket
        self.dropped = 0

    def send(self, message: messages.Message) -> bool:
        """Send, or drop and count when nobody can take it now; the receiver's sweep finds the work."""
        try:
            self._socket.send(messages.encode(message), zmq.DONTWAIT)
        except zmq.Again:
            self.dropped += 1
            return False
        return True


class Receiver:
    """The bound end of a pipeline channel.

    `fd` becomes readable at most once for many messages (it is edge-triggered): call `receive` until it answers
    None before waiting on it.
    """

    def __init__(self, socket: "zmq.Socket[bytes]", union: Any) -> None:
        self._socket = socket
        self._decoder = messages.decoder(union)
        self.fd = int(socket.getsockopt(zmq.FD))
        self.garbled = 0

    def receive(self) -> messages.Message | None:
        """The next message, or None when there is none now."""
        while True:
            try:
                data = self._socket.recv(zmq.DONTWAIT)
            except zmq.Again:
                return None
            with contextlib.suppress(msgspec.DecodeError):
                return self._decoder.decode(data)  # type: ignore[no-any-return] # the union is the channel's
            self.garbled += 1


class Server:
    """The bound end of a command channel; `fd` as in `Receiver`."""

    def __init__(self, socket: "zmq.Socket[bytes]", union: Any) -> None:
        self._socket = socket
        self._decoder = messages.decoder(union)
        self.fd = int(socket.getsockopt(zmq.FD))

    def receive(self) -> "Command | None":
        """The next command, or None when there is none now."""
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return None
            if len(frames) != 3:
                continue
            peer, serial, data = frames
            try:
                return Command(self, peer, serial, self._decoder.decode(data))
            except msgspec.DecodeError as error:
                self.answer(peer, serial, messages.Refused(reason=f"the command could not be read: {error}"))

    def answer(self, peer: bytes, serial: bytes, message: messages.Message) -> None:
        """Answer a command; a peer that has gone away gets nothing."""
        with contextlib.suppress(zmq.ZMQError):
            self._socket.send_multipart([peer, serial, messages.encode(message)], zmq.DONTWAIT)


class Command:
    """A command that waits for its answer."""

    def __init__(self, server: Server, peer: bytes, serial: bytes, message: messages.Message) -> None:
        self._server = server
        self._peer = peer
        self._serial = serial
        self.message = message

    def answer(self, message: messages.Message) -> None:
        """Send the answer."""
        self._server.answer(self._peer, self._serial, message)


class Client:
    """The asking end of a command channel."""

    def __init__(self, socket: "zmq.Socket[bytes]", owner: str) -> None:
        self._socket = socket
        self._owner = owner
        self._decoder = messages.decoder(messages.Answer)

    def ask(self, command: messages.Message, timeout_seconds: float = 10.0) -> messages.Message:
        """Send a command and wait for its answer.

        Raises:
            RefusedError: the owner will not do it.
            UnavailableError: no answer in time, or a transient refusal; whether it was done is not known.
        """
        serial = secrets.token_bytes(8)
        deadline = time.monotonic() + timeout_seconds
        late = UnavailableError(f"the {self._owner} did not answer in {timeout_seconds:g} s: try again")
        self._socket.setsockopt(zmq.SNDTIMEO, int(timeout_seconds * 1000))
        try:
            self._socket.send_multipart([serial, messages.encode(command)])
        except zmq.Again:
            raise late from None
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not self._socket.poll(int(remaining * 1000) + 1):
                raise late
            frames = self._socket.recv_multipart()
            if len(frames) == 2 and frames[0] == serial:
                break  # an answer with another serial belongs to a command that was given up
        answer: messages.Message = self._decoder.decode(frames[1])
        if isinstance(answer, messages.Refused):
            raise (UnavailableError if answer.transient else RefusedError)(answer.reason)
        return answer

    def close(self) -> None:
        """Close the socket."""
        self._socket.close(linger=0)
