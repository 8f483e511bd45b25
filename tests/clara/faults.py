"""What the platform for tests does wrong on purpose, and a count of what it was asked: an interceptor of every call."""

import enum
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from tests.clara.store import ForbiddenError


class Fault(enum.Enum):
    """What goes wrong with a call."""

    REFUSE = "refuse"  # answered with a status, nothing done
    HEADER = "header"  # answered OK with a negative code in the header, nothing done
    SLOW = "slow"  # done and answered after a pause
    HANG = "hang"  # never answered, nothing done
    CUT = "cut"  # the connection ends before anything is done; in an upload, in the middle of the first chunk
    CUT_AFTER = "cut-after"  # done, and the connection ends before the answer
    GARBAGE = "garbage"  # done, and answered with bytes that are no message
    EMPTY = "empty"  # done, and answered with a message that says nothing


@dataclass
class _Armed:
    fault: Fault
    skip: int
    times: int
    seconds: float
    code: str


class Faults(grpc.ServerInterceptor):  # type: ignore[misc] # grpc ships no type information
    """Counts calls by `Service/Method`, and breaks those that it was told to.

    Args:
        cut: ends all connections.
    """

    def __init__(self, cut: Callable[[], None]) -> None:
        self._cut = cut
        self._armed: dict[str, list[_Armed]] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.calls: Counter[str] = Counter()
        self.times: dict[str, list[float]] = {}
        self.struck: list[str] = []

    def add(
        self, method: str, fault: Fault, *, skip: int = 0, times: int = 1, seconds: float = 2.0, code: str = "INTERNAL"
    ) -> None:
        """Break calls of a method.

        Args:
            method: `Jobs/Create` and so on.
            fault: how.
            skip: how many calls go well before.
            times: how many calls are broken.
            seconds: of a slow one.
            code: name of the status of a refusal.
        """
        with self._lock:
            self._armed.setdefault(method, []).append(_Armed(fault, skip, times, seconds, code))

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        with self._lock:
            self._armed.clear()

    def count(self, method: str) -> int:
        """How often a method was called."""
        return self.calls[method]

    def end(self) -> None:
        """Let calls that hang go."""
        self._over.set()

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Wrap the handler of a call."""
        handler = continuation(details)
        if handler is None:
            return None
        method = details.method.removeprefix("/nvidia.clara.platform.")
        make = {
            (False, False): (grpc.unary_unary_rpc_method_handler, handler.unary_unary),
            (False, True): (grpc.unary_stream_rpc_method_handler, handler.unary_stream),
            (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary),
        }[handler.request_streaming, handler.response_streaming]

        def serialize(answer: Any) -> bytes:
            return answer if isinstance(answer, bytes) else handler.response_serializer(answer)

        behave = self._stream if handler.response_streaming else self._unary
        wrapped = behave(method, make[1], handler.response_serializer)
        return make[0](wrapped, request_deserializer=handler.request_deserializer, response_serializer=serialize)

    def _unary(self, method: str, behave: Any, serializer: Any) -> Any:
        def answer(request: Any, context: Any) -> Any:
            armed = self._take(method)
            request = self._before(armed, request, context)
            if armed and armed.fault is Fault.HEADER:
                return b"\x0a\x09\x08\x01\x12\x05sorry"  # header { code: -1, messages: "sorry" }
            made = _translated(behave, request, context)
            return self._after(armed, made, context)

        return answer

    def _stream(self, method: str, behave: Any, serializer: Any) -> Any:
        def answer(request: Any, context: Any) -> Iterator[Any]:
            armed = self._take(method)
            request = self._before(armed, request, context)
            if armed and armed.fault is Fault.HEADER:
                yield b"\x0a\x09\x08\x01\x12\x05sorry"
                return
            try:
                for made in behave(request, context):
                    yield self._after(armed, made, context)
            except ForbiddenError as error:
                context.abort(grpc.StatusCode[error.code], str(error))

        return answer

    def _take(self, method: str) -> _Armed | None:
        with self._lock:
            self.calls[method] += 1
            self.times.setdefault(method, []).append(time.monotonic())
            waiting = self._armed.get(method, [])
            if not waiting:
                return None
            armed = waiting[0]
            if armed.skip:
                armed.skip -= 1
                return None
            armed.times -= 1
            if not armed.times:
                waiting.pop(0)
            self.struck.append(f"{method}:{armed.fault.value}")
            return armed

    def _before(self, armed: _Armed | None, request: Any, context: Any) -> Any:
        match armed.fault if armed else None:
            case Fault.REFUSE:
                assert armed
                context.abort(grpc.StatusCode[armed.code], "told to refuse")
            case Fault.SLOW:
                assert armed
                self._over.wait(armed.seconds)
            case Fault.HANG:
                gone = threading.Event()
                context.add_callback(gone.set)
                gone.wait(600)
                context.abort(grpc.StatusCode.INTERNAL, "hung")
            case Fault.CUT:
                if not hasattr(request, "__next__"):
                    self._cut()
                    context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
                return self._cut_in_the_middle(request)
        return request

    def _cut_in_the_middle(self, request: Iterator[Any]) -> Iterator[Any]:
        first = next(request)
        first.data = first.data[: len(first.data) // 2]
        first.details.size = len(first.data)
        yield first
        self._cut()
        raise ForbiddenError("UNAVAILABLE", "cut")

    def _after(self, armed: _Armed | None, made: Any, context: Any) -> Any:
        match armed.fault if armed else None:
            case Fault.CUT_AFTER:
                self._cut()
                context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            case Fault.GARBAGE:
                return b"\xff\xff\xff\xffgarbage"
            case Fault.EMPTY:
                return b""
        return made


def _translated(behave: Any, request: Any, context: Any) -> Any:
    """What the service answers; what it forbids as the status of the call."""
    try:
        return behave(request, context)
    except ForbiddenError as error:
        context.abort(grpc.StatusCode[error.code], str(error))
