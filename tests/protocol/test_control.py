"""Asking the supervisor: answers, refusals, silence, and nobody there."""

import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protocol import control, messages
from protocol.birth import control_socket
from protocol.errors import RefusedError, UnavailableError

STATUS = messages.Status(
    actors=(),
    active_associations=3,
    storage=messages.StorageStatus(state="open", free_bytes=1, reserved_bytes=0),
)


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A directory whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="dicom-adapter-") as directory:
        yield Path(directory)


def serve(runtime: Path, handle: Callable[[socket.socket], None]) -> threading.Thread:
    """Listen as the supervisor, and handle one connection."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(control_socket(runtime)))
    listener.listen(1)

    def run() -> None:
        connection, _ = listener.accept()
        with listener, connection:
            handle(connection)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def answer_with(data: bytes) -> Callable[[socket.socket], None]:
    """A handler that reads a request and sends bytes."""

    def handle(connection: socket.socket) -> None:
        length = control.LENGTH.unpack(connection.recv(4, socket.MSG_WAITALL))[0]
        connection.recv(length, socket.MSG_WAITALL)
        connection.sendall(data)

    return handle


def test_status(runtime: Path) -> None:
    """The request travels behind its length, and the answer comes back, also in small pieces."""
    heard: list[messages.Message] = []

    def handle(connection: socket.socket) -> None:
        length = control.LENGTH.unpack(connection.recv(4, socket.MSG_WAITALL))[0]
        heard.append(messages.decoder(messages.ControlRequest).decode(connection.recv(length, socket.MSG_WAITALL)))
        for byte in control.frame(STATUS):
            connection.sendall(bytes([byte]))

    thread = serve(runtime, handle)
    assert control.status(runtime, 10.0) == STATUS
    thread.join(10.0)
    assert heard == [messages.GetStatus()]


def test_restart(runtime: Path) -> None:
    thread = serve(runtime, answer_with(control.frame(messages.Done(affected=2))))
    assert control.restart(runtime, "receiver", 10.0).affected == 2
    thread.join(10.0)


@pytest.mark.parametrize(("transient", "error"), [(False, RefusedError), (True, UnavailableError)])
def test_refused(runtime: Path, transient: bool, error: type[Exception]) -> None:
    serve(runtime, answer_with(control.frame(messages.Refused(reason="no such actor", transient=transient))))
    with pytest.raises(error, match="no such actor"):
        control.restart(runtime, "x", 10.0)


def test_nobody_listens(runtime: Path) -> None:
    with pytest.raises(UnavailableError, match="no dicom-adapter answers"):
        control.status(runtime)


def test_silence_ends_at_the_deadline(runtime: Path) -> None:
    """A supervisor that hangs costs the whole time and no more."""
    release = threading.Event()

    def say_nothing(_: socket.socket) -> None:
        release.wait(20.0)

    thread = serve(runtime, say_nothing)
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=r"did not answer in 0\.3 s"):
        control.status(runtime, 0.3)
    assert time.monotonic() - started < 10.0
    release.set()
    thread.join(10.0)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0\0", control.LENGTH.pack(5) + b"abc", control.LENGTH.pack(3) + b"abc", b"\xff\xff\xff\xff"],
)
def test_garbage(runtime: Path, data: bytes) -> None:
    """What is cut short, no message, or too long to be one is told as nobody there."""
    thread = serve(runtime, answer_with(data))
    with pytest.raises(UnavailableError):
        control.status(runtime, 10.0)
    thread.join(10.0)


def test_wrong_answer(runtime: Path) -> None:
    serve(runtime, answer_with(control.frame(messages.Done())))
    with pytest.raises(UnavailableError, match="another version"):
        control.status(runtime, 10.0)
