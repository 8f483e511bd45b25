"""The program of a host process: makes one job processor, and answers what it is asked until the connection closes.

`process.HostProcess` starts it as `python -P -m protocol.plugins.host PARENT FOR`, where FOR is for people who list
processes; the connection is its standard input.
"""

import contextlib
import ctypes
import faulthandler
import itertools
import math
import os
import re
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import overload

import msgspec

from protocol import messages
from protocol.errors import AdapterError
from protocol.job_processors import JobPlan, JobProcessor, load
from protocol.messages import DescribedInstance, Message
from protocol.plugins import limits
from protocol.plugins.calls import (
    Frames,
    Grouped,
    GroupInstances,
    Key,
    Load,
    Loaded,
    Members,
    MembersWanted,
    PlanJobs,
    Planned,
    Raised,
    Rejected,
    ToHost,
    frame,
)

_PR_SET_PDEATHSIG = 1
_NICE = 5  # receiving goes first
_OOM_SCORE = 500  # and when memory is short, job processors of others go first
_OPEN_FILES = 1024
_FLUSH_SECONDS = 0.02
_READ_BYTES = 1 << 18
_FRAMES = 20
_TAG = re.compile("[0-9A-F]{8}")


class Host:
    """Serves one connection.

    Args:
        connection: to the actor.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._frames = Frames(messages.decoder(ToHost), longest_bytes=2**32)
        self._requests: list[Message] = []
        self._processor: JobProcessor | None = None

    def serve(self) -> None:
        """Answer until the connection closes."""
        with contextlib.suppress(EOFError):
            while True:
                request = self._receive()
                try:
                    self._answer(request)
                except EOFError:
                    raise
                except Exception as error:
                    self._send(Raised(error=_type_name(error), trace=_trace(error)))

    def _answer(self, request: Message) -> None:
        match request:
            case Load():
                self._send(self._load(request))
            case GroupInstances():
                self._group(request.instances)
            case PlanJobs():
                self._send(self._plan(request))

    def _load(self, request: Load) -> Loaded | Rejected:
        try:
            offered = load(request.name)
        except AdapterError as error:
            return Rejected(problems=(str(error),))
        problems = tuple(str(problem) for problem in offered.validate(dict(request.settings)))
        if problems:
            return Rejected(problems=problems)
        self._processor = offered(request.ae_title, request.settings)
        return _described(self._processor)

    def _group(self, instances: Sequence[DescribedInstance]) -> None:
        """What is known is sent every now and then, so that a slow job processor can be told from a stuck one."""
        keys: list[Key] = []
        trace = ""
        flush_at = time.monotonic() + _FLUSH_SECONDS
        for instance in instances:
            try:
                keys.append(self._key(instance))
            except Exception as error:
                keys.append(Key(error=_type_name(error)))
                trace = trace or _trace(error)
            if time.monotonic() >= flush_at:
                self._send(Grouped(keys=tuple(keys), trace=trace))
                keys, trace = [], ""
                flush_at = time.monotonic() + _FLUSH_SECONDS
        if keys:
            self._send(Grouped(keys=tuple(keys), trace=trace))

    def _key(self, instance: DescribedInstance) -> Key:
        assert self._processor is not None
        key = self._processor.group_key(instance)
        if not isinstance(key, str):
            raise TypeError
        return Key(key=key.encode().decode())  # neither a subclass nor what no encoding takes

    def _plan(self, request: PlanJobs) -> Planned:
        assert self._processor is not None
        plans = self._processor.plan(request.group_key, _LazyMembers(request.count, self._next_members))
        some = itertools.islice(plans, limits.MOST_JOBS + 1)
        found = msgspec.convert([msgspec.to_builtins(plan) for plan in some], tuple[JobPlan, ...])
        if len(found) > limits.MOST_JOBS:
            raise TooManyJobsError
        return Planned(plans=found)

    def _next_members(self) -> Sequence[DescribedInstance]:
        self._send(MembersWanted())
        page = self._receive()
        assert isinstance(page, Members)
        return page.instances

    def _send(self, message: Message) -> None:
        try:
            self._connection.sendall(frame(message))
        except OSError:
            raise EOFError from None

    def _receive(self) -> Message:
        while not self._requests:
            try:
                data = self._connection.recv(_READ_BYTES)
            except OSError:
                data = b""
            if not data:
                raise EOFError
            self._requests += self._frames.feed(data)
        return self._requests.pop(0)


class TooManyJobsError(Exception):
    """A job processor planned more jobs for a group than one may have."""


class _LazyMembers(Sequence[DescribedInstance]):
    """A group's instances, which are fetched when a job processor looks at them."""

    def __init__(self, count: int, next_page: Callable[[], Sequence[DescribedInstance]]) -> None:
        self._count = count
        self._next_page = next_page
        self._read: list[DescribedInstance] | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> DescribedInstance: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[DescribedInstance]: ...
    def __getitem__(self, index: int | slice) -> DescribedInstance | Sequence[DescribedInstance]:
        if self._read is None:
            read: list[DescribedInstance] = []
            while page := self._next_page():
                read += page
            self._read = read
        return self._read[index]


def _described(processor: JobProcessor) -> Loaded | Rejected:
    """What a job processor says of itself, or what is wrong with it: others compute with it."""
    tags = tuple(str(tag).upper() for tag in processor.tags)
    timeout, delay = float(processor.timeout_seconds), float(processor.retry_delay_seconds)
    label = str(processor.label or type(processor).__name__)
    problems = [f"the job processor's tag {tag!r} is none: GGGGEEEE is" for tag in tags if not _TAG.fullmatch(tag)]
    for name, seconds in (("timeout_seconds", timeout), ("retry_delay_seconds", delay)):
        if not (math.isfinite(seconds) and 0 <= seconds <= limits.LONGEST_TIMEOUT_SECONDS):
            problems.append(
                f"the job processor's {name} is {seconds:g}: allowed are 0 to {limits.LONGEST_TIMEOUT_SECONDS:.0f}"
            )
    if not label.isprintable() or len(label) > limits.LONGEST_TEXT:
        problems.append(f"the job processor's label is not of at most {limits.LONGEST_TEXT} printable characters")
    if problems:
        return Rejected(problems=tuple(problems))
    return Loaded(tags=tags, timeout_seconds=timeout, retry_delay_seconds=delay, label=label)


def _type_name(error: Exception) -> str:
    return type(error).__name__.encode("ascii", "replace").decode()[: limits.LONGEST_TEXT]


def _trace(error: Exception) -> str:
    """The last lines of code that led to an error, without those of this module and without its words."""
    frames = [
        (frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    lines = [f"{file}:{line} in {name}" for file, line, name in frames if file != __file__]
    return " | ".join(lines[-_FRAMES:]).encode("ascii", "replace").decode()


def _limit(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(kind, (most, most))


def main() -> int:
    """Bind this process to its parent, bound what it may take, and serve."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        return 0  # it was gone before
    connection = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.close(nothing)
    _limit(resource.RLIMIT_DATA, limits.MEMORY_BYTES)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _limit(resource.RLIMIT_CORE, 0)
    with contextlib.suppress(OSError):  # a sandbox may not let it
        os.nice(_NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE), encoding="ascii")
    faulthandler.enable()
    Host(connection).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
