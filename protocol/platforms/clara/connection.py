"""The connection to Clara Platform: one channel, a deadline on every call, and every failure as one of our own errors.

NVIDIA's own client classes know no TLS and leave most failures to their callers, so only their generated code is used.
"""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from protocol.config.settings import PlatformTls
from protocol.errors import AdapterError, ConfigurationError, RefusedError, UnavailableError
from protocol.logs import EventLogger
from protocol.platforms.base import PlatformError, StepInterruptedError
from protocol.platforms.clara.generated import common_pb2, jobs_pb2_grpc, payloads_pb2_grpc

_API_VERSION = (0, 6, 0)
_DETAILS_LENGTH = 200
_STREAM_SECONDS = 600.0
_ANSWER_BYTES = 16 << 20  # metadata of one job may be 4 MB
# A lost answer must be seen as lost: what is repeated, and when, is decided by the submitter alone.
_OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", _ANSWER_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 5000),
)

_Code = grpc.StatusCode
_AWAY = frozenset({_Code.UNAVAILABLE, _Code.DEADLINE_EXCEEDED, _Code.CANCELLED})
_REFUSED = frozenset(
    {
        _Code.INVALID_ARGUMENT,
        _Code.NOT_FOUND,
        _Code.ALREADY_EXISTS,
        _Code.PERMISSION_DENIED,
        _Code.UNAUTHENTICATED,
        _Code.FAILED_PRECONDITION,
        _Code.OUT_OF_RANGE,
        _Code.UNIMPLEMENTED,
    }
)


class NotThereError(RefusedError):
    """The platform has nothing of this identifier or name."""


class ExistsError(RefusedError):
    """The platform has something of this name already."""


class Connection:
    """A channel to Clara Platform, for several threads.

    Args:
        endpoint: `host:port`.
        tls: whether and how the platform's certificate is checked.
        timeout_seconds: of a call, and the longest silence in a transfer.
        stopping: set when this process is about to end.

    Raises:
        ConfigurationError: a certificate or key cannot be used.
    """

    def __init__(self, endpoint: str, tls: PlatformTls, timeout_seconds: float, stopping: threading.Event) -> None:
        self.timeout_seconds = timeout_seconds
        self._endpoint = endpoint
        self._stopping = stopping
        self._log = EventLogger("adapter.platform.clara")
        if tls.enabled:
            self._channel = grpc.secure_channel(endpoint, _credentials(tls), _OPTIONS)
        else:
            self._channel = grpc.insecure_channel(endpoint, _OPTIONS)
        self.jobs: Any = jobs_pb2_grpc.JobsStub(self._channel)
        self.payloads: Any = payloads_pb2_grpc.PayloadsStub(self._channel)

    def close(self) -> None:
        """End all calls that are under way, and the connection."""
        self._channel.close()

    def check_stopping(self) -> None:
        """Raise when this process is about to end.

        Raises:
            StepInterruptedError: it is.
        """
        if self._stopping.is_set():
            raise StepInterruptedError("this process ends: the next one goes on")

    def ask(
        self, what: str, method: Callable[..., Any], request: Any, *, more_seconds: float = 0.0, private: bool = False
    ) -> Any:
        """Make a call that has one answer.

        Args:
            what: words that complete "Clara Platform could not".
            method: of a stub.
            request: the message, or an iterator of messages.
            more_seconds: beyond the timeout.
            private: whether what the platform says of a failure may hold patient data.

        Raises:
            AdapterError: as `protocol.platforms.base.Platform` tells.
        """
        self.check_stopping()
        try:
            answer = method(request, timeout=self.timeout_seconds + more_seconds)
        except (grpc.RpcError, ValueError) as error:
            raise self._translated(what, error, private=private) from error
        self._check(what, answer.header, private=private)
        return answer

    def stream(
        self,
        what: str,
        method: Callable[..., Any],
        request: Any,
        *,
        private: bool = False,
        most_seconds: float = _STREAM_SECONDS,
    ) -> Iterator[Any]:
        """Make a call that has many answers; it is broken off when the next one takes longer than the timeout.

        Args:
            what: words that complete "Clara Platform could not".
            method: of a stub.
            request: the message.
            private: whether what the platform says of a failure may hold patient data.
            most_seconds: how long all of it may take.

        Raises:
            AdapterError: as `protocol.platforms.base.Platform` tells.
        """
        self.check_stopping()
        try:
            call = method(request, timeout=most_seconds)
        except ValueError as error:
            raise self._translated(what, error, private=private) from error
        with _Watch(call, self.timeout_seconds) as watch:
            try:
                for number, answer in enumerate(call):
                    watch.moved()
                    if number == 0:
                        self._check(what, answer.header, private=private)
                    yield answer
                    watch.moved()
            except grpc.RpcError as error:
                if watch.stalled:
                    raise UnavailableError(
                        f"Clara Platform at {self._endpoint} could not {what}: silent for {self.timeout_seconds:g} s"
                    ) from error
                raise self._translated(what, error, private=private) from error

    def _check(self, what: str, header: Any, *, private: bool) -> None:
        """A platform may answer OK, and say in the header that it failed."""
        if header.code < 0:
            said = self._said("; ".join(header.messages), private=private)
            raise PlatformError(f"Clara Platform could not {what}: code {header.code}{said}")

    def _translated(self, what: str, error: Exception, *, private: bool) -> AdapterError:
        code = error.code() if isinstance(error, grpc.Call) else None
        if self._stopping.is_set() and code in (None, _Code.CANCELLED):
            return StepInterruptedError("this process ends: the next one goes on")
        words = code.name if code is not None else "no connection"
        said = self._said(str(error.details() or ""), private=private) if isinstance(error, grpc.Call) else ""
        sentence = f"Clara Platform at {self._endpoint} could not {what}: {words}{said}"
        if code is None or code in _AWAY:
            return UnavailableError(sentence)
        if code is _Code.NOT_FOUND:
            return NotThereError(sentence)
        if code is _Code.ALREADY_EXISTS:
            return ExistsError(sentence)
        return RefusedError(sentence) if code in _REFUSED else PlatformError(sentence)

    def _said(self, text: str, *, private: bool) -> str:
        """The platform's own words, where they cannot hold what it was told of a patient."""
        if private:
            self._log.debug("platform_said", words=text[:_DETAILS_LENGTH])
            return ""
        readable = "".join(character if character.isprintable() else " " for character in text[:_DETAILS_LENGTH])
        return f" ({readable})" if readable else ""


class _Watch:
    """Cancels a call in which nothing moves."""

    def __init__(self, call: Any, seconds: float) -> None:
        self._call = call
        self._seconds = seconds
        self._moved = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self.stalled = False

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._call.cancel()  # when its reader has left early; no effect on a call that is over

    def moved(self) -> None:
        """Something has."""
        self._moved = time.monotonic()

    def _look(self) -> None:
        while not self._over.wait(max(0.0, self._moved + self._seconds - time.monotonic())):
            if time.monotonic() - self._moved >= self._seconds:
                self.stalled = True
                self._call.cancel()
                return


def header() -> Any:
    """What every request begins with."""
    major, minor, patch = _API_VERSION
    return common_pb2.RequestHeader(
        api_version=common_pb2.Version(major=major, minor=minor, patch=patch), user_agent="dicom-adapter"
    )


def identifier(value: str) -> Any:
    """An identifier as the platform has it in messages."""
    return common_pb2.Identifier(value=value)


def _credentials(tls: PlatformTls) -> Any:
    """What TLS is made with; without an authority of its own the system's are trusted."""
    authorities = tls.ca_file or ssl.get_default_verify_paths().cafile
    return grpc.ssl_channel_credentials(
        _contents("caFile", authorities),
        _contents("keyFile", tls.key_file),
        _contents("certificateFile", tls.certificate_file),
    )


def _contents(setting: str, path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigurationError(
            f"DicomAdapter.services.platform.tls.{setting}: {path} cannot be read ({error.strerror}): "
            "name a PEM file that the service's user may read"
        ) from error
