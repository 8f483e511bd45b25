"""The base of all actors: one main loop for messages, descriptors, timers and heartbeats, and an orderly end.

An actor binds the channels that name its kind as binder, and has a method `handle_<message>` for each message of
theirs. Everything runs in the one loop, so a stuck actor looks stuck; what would block goes to a thread that comes
back through `post`.
"""

import contextlib
import heapq
import itertools
import os
import re
import select
import signal
import socket
import time
import typing
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

from protocol import channels, messages
from protocol.birth import Birth
from protocol.board import Board
from protocol.bus import Bus, Command, Receiver, Server
from protocol.channels import Pattern
from protocol.config import Settings, decode
from protocol.errors import AdapterError
from protocol.logs import EventLogger, set_up

HEARTBEAT_SECONDS = 1.0
_MESSAGES_PER_TURN = 1000


class Timer:
    """Something to do at a time; `cancel` it, or let it fire."""

    __slots__ = ("at", "callback", "period")

    def __init__(self, at: float, callback: Callable[[], None], period: float = 0.0) -> None:
        self.at = at
        self.callback: Callable[[], None] | None = callback
        self.period = period

    def cancel(self) -> None:
        """Never call it again."""
        self.callback = None


class Actor:
    """One process of the gateway.

    Args:
        birth: what the supervisor gave it.
        settings: the effective settings.
    """

    kind: ClassVar[str]
    needs_capabilities: ClassVar[bool] = False

    def __init__(self, birth: Birth, settings: Settings) -> None:
        self.birth = birth
        self.name = birth.name
        self.settings = settings
        self.log = EventLogger(f"adapter.{self.kind}")
        self.bus = Bus(Path(birth.runtime), settings)
        self.board = Board(birth.board)
        self.draining = False
        self.gateway_stops = False
        self._finished = False
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._timer_serial = itertools.count()
        self._posted: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lifeline = socket.socket(fileno=birth.lifeline)
        self._from_supervisor = messages.decoder(messages.ToActor)
        self._inputs: list[Receiver | Server] = []
        self._handlers: dict[type, Callable[[Any], Any]] = {}

    # What a subclass fills in.

    def start(self) -> None:
        """Open what is needed and replay unfinished work; the actor is ready when this returns."""

    def after_turn(self) -> None:
        """Called once after the messages of a turn were handled: the place to commit what they brought."""

    def drain(self) -> None:
        """Take nothing new; call `finish` when what there is has been done. It is called at most once."""
        self.finish()

    def settings_changed(self, settings: Settings) -> None:
        """New settings are in force; levels of logging are applied already."""

    def stop(self) -> None:
        """Release what `start` opened; the last thing that is called."""

    def busy_with(self) -> str:
        """A few words for `status`."""
        return ""

    # What a subclass uses.

    def watch(self, fd: int, callback: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        """Call back with the event mask when a descriptor is ready; level-triggered unless `events` says."""
        self._watched[fd] = callback
        self._epoll.register(fd, events)

    def rewatch(self, fd: int, events: int) -> None:
        """Wait for other events of a watched descriptor."""
        self._epoll.modify(fd, events)

    def redirect(self, fd: int, callback: Callable[[int], None]) -> None:
        """Call another back for a watched descriptor."""
        self._watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Forget a descriptor; call it before closing."""
        if self._watched.pop(fd, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def at(self, clock: float, callback: Callable[[], None]) -> Timer:
        """Call once when `time.monotonic()` reaches `clock`."""
        return self._add_timer(Timer(clock, callback))

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call once after so many seconds."""
        return self._add_timer(Timer(time.monotonic() + seconds, callback))

    def every(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call again and again."""
        return self._add_timer(Timer(time.monotonic() + seconds, callback, seconds))

    def post(self, callback: Callable[[], None]) -> None:
        """Have the main loop call something; safe from any thread."""
        self._posted.append(callback)
        os.eventfd_write(self._wake, 1)

    def wait_for_ledger(self, quiet_seconds: float) -> None:
        """For `Ledger`: tell the supervisor that this process lives while its ledger is migrated before it starts.

        Args:
            quiet_seconds: how long it may say nothing.
        """
        self.tell_supervisor(messages.Heartbeat(detail="the ledger is being migrated", quiet_seconds=quiet_seconds))

    def finish(self) -> None:
        """End the main loop after this turn."""
        self._finished = True

    # The main loop.

    def run(self) -> None:
        """Live: start, turn until finished, stop."""
        self.open()
        try:
            while not self._finished:
                self.turn(self.seconds_to_next_timer())
        finally:
            self.stop()
            self.bus.close()

    def open(self) -> None:
        """Set up the loop, start, and report ready."""
        self._lifeline.setblocking(False)
        self.watch(self._wake, self._woken)
        self.watch(self._lifeline.fileno(), self._hear_supervisor)
        self._catch_signals()
        self._bind_channels()
        self.start()
        self.every(HEARTBEAT_SECONDS, self._beat)
        self.tell_supervisor(messages.Ready())
        self.log.info("ready", pid=os.getpid())

    def turn(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for something to do, and do what there is."""
        if self._posted:
            timeout = 0.0
        for fd, events in self._epoll.poll(timeout):
            callback = self._watched.get(fd)
            if callback is not None:
                callback(events)
        for _ in range(len(self._posted)):
            self._posted.popleft()()
        self._take_messages()
        self._fire_timers()
        self.after_turn()

    def seconds_to_next_timer(self) -> float:
        """How long a turn may wait."""
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else 60.0

    @property
    def finished(self) -> bool:
        """Whether `finish` was called."""
        return self._finished

    @property
    def loop_fd(self) -> int:
        """Readable when a turn has something to do: for actors that live in another event loop."""
        return self._epoll.fileno()

    def begin_drain(self, seconds: float, *, gateway_stops: bool = False) -> None:
        """Start the orderly end; it is cut after so many seconds.

        Args:
            seconds: how long it may take.
            gateway_stops: the whole gateway ends, not this actor alone; `drain` finds it as `self.gateway_stops`.
        """
        if self.draining:
            return
        self.draining = True
        self.gateway_stops = gateway_stops
        self.log.info("draining", seconds=seconds)
        self.tell_supervisor(messages.Draining())
        self.after(max(0.0, seconds), self.finish)
        self.drain()

    def tell_supervisor(self, message: messages.Message) -> None:
        """Say something upward; a supervisor that does not listen is no reason to wait."""
        with contextlib.suppress(OSError):
            self._lifeline.send(messages.encode(message))

    def _woken(self, _: int) -> None:
        os.eventfd_read(self._wake)

    def _add_timer(self, timer: Timer) -> Timer:
        heapq.heappush(self._timers, (timer.at, next(self._timer_serial), timer))
        return timer

    def _fire_timers(self) -> None:
        clock = time.monotonic()
        while self._timers and self._timers[0][0] <= clock:
            timer = heapq.heappop(self._timers)[2]
            if timer.callback is None:
                continue
            timer.callback()
            if timer.period and timer.callback is not None:
                timer.at = time.monotonic() + timer.period
                self._add_timer(timer)

    def _bind_channels(self) -> None:
        for channel in channels.bound_by(self.kind):
            for message in typing.get_args(channel.accepts) or (channel.accepts,):
                words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", message.__name__).lower()
                self._handlers[message] = getattr(self, f"handle_{words}")
            opened: Receiver | Server
            if channel.pattern is Pattern.PIPELINE:
                opened = self.bus.receiver(channel, self.name)
            else:
                opened = self.bus.server(channel, self.name)
            self._inputs.append(opened)
            self.watch(opened.fd, lambda _: None)

    def _take_messages(self) -> None:
        """Handle what has come; a command's handler returns its answer, or a future that is sure to have it."""
        for source in self._inputs:
            for _ in range(_MESSAGES_PER_TURN):
                if isinstance(source, Receiver):
                    message = source.receive()
                    if message is None:
                        break
                    self._handlers[type(message)](message)
                else:
                    command = source.receive()
                    if command is None:
                        break
                    self._answer_command(command)
            else:
                # More may wait, and the descriptor tells of them only once.
                os.eventfd_write(self._wake, 1)

    def _answer_command(self, command: Command) -> None:
        """Answer now, or when what the handler has begun is done."""
        answer = self._answer(command.message)
        if isinstance(answer, Future):
            answer.add_done_callback(lambda done: self.post(lambda: command.answer(done.result())))
        else:
            command.answer(answer)

    def _answer(self, message: messages.Message) -> "messages.Message | Future[messages.Message]":
        try:
            answer: messages.Message | Future[messages.Message] = self._handlers[type(message)](message)
        except AdapterError as error:
            return messages.Refused(reason=str(error))
        return answer

    def _beat(self) -> None:
        self.tell_supervisor(messages.Heartbeat(detail=self.busy_with()))

    def _hear_supervisor(self, _: int) -> None:
        try:
            data = self._lifeline.recv(65536)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self.unwatch(self._lifeline.fileno())
            self.log.warning("supervisor_gone", remedy="draining; the next supervisor starts a successor")
            self.begin_drain(self.settings.services.stop_seconds, gateway_stops=True)
            return
        message = self._from_supervisor.decode(data)
        if isinstance(message, messages.Drain):
            self.begin_drain(message.seconds, gateway_stops=message.gateway_stops)
        else:
            self.settings = decode(self.birth.settings_file.read_bytes())
            set_up(self.settings, self.name)
            self.settings_changed(self.settings)

    def _catch_signals(self) -> None:
        """SIGTERM drains; the signal only wakes the loop, which does the work."""

        def terminate(*_: object) -> None:
            self.post(lambda: self.begin_drain(self.settings.services.stop_seconds))

        signal.signal(signal.SIGTERM, terminate)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
