"""How the supervisor is asked over its control socket: a stream that works while everything else is down.

One connection carries one request and one answer, each a MessagePack message behind its length in four bytes, most
significant first.
"""

import socket
import struct
import time
from pathlib import Path
from typing import TypeVar

import msgspec

from protocol import messages
from protocol.birth import control_socket
from protocol.errors import RefusedError, UnavailableError

LENGTH = struct.Struct(">I")
LONGEST_BYTES = 16 * 1024 * 1024

_decoder: msgspec.msgpack.Decoder[messages.ControlAnswer] = messages.decoder(messages.ControlAnswer)
_A = TypeVar("_A", messages.Status, messages.Done)


def frame(message: messages.Message) -> bytes:
    """A message as it travels on the control socket."""
    data = messages.encode(message)
    return LENGTH.pack(len(data)) + data


def ask(
    runtime: str | Path, request: messages.ControlRequest, timeout_seconds: float = 10.0
) -> messages.Status | messages.Done:
    """Ask the supervisor something and wait for its answer.

    Args:
        runtime: the runtime directory.
        request: what is asked.
        timeout_seconds: for all of it, from connecting to the answer's last byte.

    Raises:
        UnavailableError: no supervisor listens there, or it did not answer in time.
        RefusedError: the supervisor will not do it.
    """
    path = control_socket(runtime)
    deadline = time.monotonic() + timeout_seconds
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(timeout_seconds)
            connection.connect(str(path))
            connection.sendall(frame(request))
            length = LENGTH.unpack(_read(connection, LENGTH.size, deadline))[0]
            if length > LONGEST_BYTES:
                raise UnavailableError(f"what listens at {path} is no dicom-adapter: see what runs there")
            answer = _decoder.decode(_read(connection, length, deadline))
        except TimeoutError:
            raise UnavailableError(
                f"the supervisor did not answer in {timeout_seconds:g} s: try again, or look at its log"
            ) from None
        except PermissionError:
            raise UnavailableError(
                f"this user may not ask what listens at {path}: use sudo, or the account that the gateway runs as"
            ) from None
        except (OSError, EOFError, msgspec.DecodeError) as error:
            raise UnavailableError(
                f"no dicom-adapter answers at {path} ({error}): start it, or name its runtime directory"
            ) from error
    if isinstance(answer, messages.Refused):
        raise (UnavailableError if answer.transient else RefusedError)(answer.reason)
    return answer


def status(runtime: str | Path, timeout_seconds: float = 5.0) -> messages.Status:
    """The supervisor's actors as they are now.

    Raises:
        UnavailableError: as `ask`.
    """
    return _expect(messages.Status, ask(runtime, messages.GetStatus(), timeout_seconds))


def restart(runtime: str | Path, target: str, timeout_seconds: float) -> messages.Done:
    """Replace the actors of a kind, or one by name; returns when the successors are ready.

    Raises:
        UnavailableError, RefusedError: as `ask`.
    """
    return _expect(messages.Done, ask(runtime, messages.RestartActors(target=target), timeout_seconds))


def _expect(wanted: type[_A], answer: messages.Status | messages.Done) -> _A:
    if not isinstance(answer, wanted):
        raise UnavailableError(f"the supervisor answered {type(answer).__name__}: it is of another version; restart it")
    return answer


def _read(connection: socket.socket, count: int, deadline: float) -> bytes:
    """Exactly so many bytes before the deadline.

    Raises:
        TimeoutError: the deadline passed.
        EOFError: the stream ended before.
    """
    data = bytearray()
    while len(data) < count:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        chunk = connection.recv(min(count - len(data), 65536))
        if not chunk:
            raise EOFError("the connection was closed")
        data += chunk
    return bytes(data)
