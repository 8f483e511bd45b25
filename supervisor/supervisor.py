"""The supervisor's one loop: signals, child exits, heartbeats, the control socket, and a computed deadline."""

import contextlib
import os
import resource
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path

from protocol import messages
from protocol.birth import Birth, settings_file
from protocol.board import Board
from protocol.channels import KINDS, actors_of
from protocol.config import Settings, encode
from protocol.errors import AdapterError
from protocol.logs import EventLogger, set_up
from protocol.spool import UMASK, Spool, write_durably
from supervisor import report
from supervisor.child import Child
from supervisor.control import Asker, ControlSocket
from supervisor.orphans import make_private_directory, open_lock, wait_for_orphans
from supervisor.post import Post
from supervisor.reload import kinds_replaced
from supervisor.sockets import Listeners
from supervisor.systemd import Notifier

_log = EventLogger("adapter.supervisor")
_LONGEST_WAIT_SECONDS = 60.0
_OVERSLEPT_SECONDS = 1.0
# Of the time that a stop may take, receivers have this share to finish what is in transit.
_RECEIVERS_SHARE = 0.4


class Supervisor:
    """Fills every post, and keeps it filled.

    Args:
        settings: the effective settings.
        reload: loads the settings anew, for SIGHUP; raises `AdapterError` when they are wrong.
    """

    def __init__(self, settings: Settings, reload: Callable[[], Settings]) -> None:
        self._settings = settings
        self._reload = reload
        self._runtime = Path(settings.runtime_directory)
        self._notifier = Notifier()
        self._poll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._signals: list[int] = []
        self._leaving: list[Child] = []  # replaced, and finishing what they have
        self._restarting: list[tuple[list[Post], Asker]] = []
        self._stopping: list[str] | None = None  # kinds that are still to be stopped
        self._stop_deadline = 0.0
        self._ready = False
        self._posts = [Post(name, kind) for kind in KINDS for name in actors_of(kind, settings)]

    def run(self) -> int:
        """Live until a signal ends it; returns the exit code.

        Raises:
            AdapterError: it cannot start.
        """
        self._prepare()
        try:
            while self._stopping is None or self._stopping or self._living():
                self._turn()
        finally:
            for child in self._living():
                child.kill()
            self._control.close()
            with contextlib.suppress(FileNotFoundError):
                settings_file(self._runtime).unlink()
        _log.info("stopped")
        return 0

    # Birth.

    def _prepare(self) -> None:
        os.umask(UMASK)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        make_private_directory(self._runtime)
        spool = Spool(self._settings.storage.temporary)
        spool.create()
        self._spool_lock = spool.lock()
        self._wake, wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: self._signals.append(number))
        self._watch(self._wake, lambda: _drain_pipe(self._wake))
        self._actors_lock = open_lock(self._runtime)
        wait_for_orphans(self._actors_lock, self._runtime, self._settings.services.stop_seconds)
        self._listeners = Listeners(self._settings)
        self._board = Board.create()
        self._alive, self._alive_writer = os.pipe2(os.O_CLOEXEC)
        write_durably(settings_file(self._runtime), encode(self._settings), 0o600)
        self._control = ControlSocket(self._runtime, self._watch, self._unwatch, self._handle)
        _log.info("starting", pid=os.getpid(), actors=len(self._posts), dicom_port=self._settings.dicom.scp.port)

    def _spawn(self, post: Post) -> Child | None:
        row = -1
        if post.kind == "receiver":
            claimed = self._board.claim_row()
            if claimed is None:
                _log.error("no_row_free", actor=post.name, remedy="wait until receivers that were replaced have ended")
                return None
            row = claimed
        birth = Birth(
            name=post.name,
            runtime=str(self._runtime),
            lifeline=-1,
            alive=self._alive,
            board=self._board.fd,
            row=row,
            listeners=self._listeners.of(post.kind),
        )
        child = Child(birth, (self._actors_lock,))
        self._watch(child.lifeline.fileno(), lambda: self._hear(post, child))
        self._watch(child.pidfd, lambda: self._ended(post, child))
        _log.debug("spawned", actor=post.name, pid=child.pid)
        return child

    # The loop.

    def _turn(self) -> None:
        clock = time.monotonic()
        wait = min(_LONGEST_WAIT_SECONDS, max(0.0, self._deadline(clock) - clock))
        ready = self._poll.poll(wait)
        woken = time.monotonic()
        self._excuse_all(woken - clock - wait)
        for fd, _ in ready:
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback()
        while self._signals:
            self._take_signal(self._signals.pop(0))
        clock = time.monotonic()
        if self._stopping is None:
            for post in self._posts:
                if post.due(clock):
                    post.child = self._spawn(post)
                    post.next_start = clock + 1.0 if post.child is None else 0.0
        else:
            self._stop_next()
        self._excuse_all(clock - woken)
        self._judge_the_late(clock)
        self._answer_restarts()
        self._tell_systemd()
        self._notifier.beat(clock)

    def _deadline(self, clock: float) -> float:
        """When something is due although nothing happens."""
        due = [child.limit() for child in self._living()]
        if self._stopping is None:
            due += [post.next_start for post in self._posts if post.child is None]
        else:
            due.append(self._stop_deadline)
        due.append(self._notifier.beat(clock))
        return min(due)

    def _watch(self, fd: int, callback: Callable[[], None]) -> None:
        self._callbacks[fd] = callback
        self._poll.register(fd, select.EPOLLIN)

    def _unwatch(self, fd: int) -> None:
        del self._callbacks[fd]
        self._poll.unregister(fd)

    def _living(self) -> list[Child]:
        at_posts = [child for post in self._posts for child in (post.child, post.successor) if child is not None]
        return at_posts + self._leaving

    # Children.

    def _hear(self, post: Post, child: Child) -> None:
        heard = child.hear()
        if child is post.successor and any(isinstance(message, messages.Ready) for message in heard):
            predecessor, post.child, post.successor = post.child, child, None
            post.restarts += 1
            if predecessor is not None:
                self._leaving.append(predecessor)
                predecessor.drain(self._settings.dicom.scp.drain_seconds, gateway_stops=False)
            if child.outdated:
                child.tell_settings_changed()
                self._replace(post)

    def _ended(self, post: Post, child: Child) -> None:
        self._unwatch(child.lifeline.fileno())
        self._unwatch(child.pidfd)
        lived = time.monotonic() - child.started
        asked = child.state == "draining"
        code = child.reap()
        if child.row >= 0:
            self._board.clear_row(child.row)
        if child in self._leaving:
            self._leaving.remove(child)
            _log.info("actor_left", actor=child.name, pid=child.pid, code=code)
        elif child is post.successor:
            post.successor = None
            _log.error("successor_failed", actor=child.name, pid=child.pid, code=code)
            self._refuse_restarts(post, f"the successor of {post.name} ended with code {code}; the old one goes on")
        else:
            post.child = None
            pause = post.lost(code, lived, asked=asked)
            if asked:
                _log.info("actor_left", actor=child.name, pid=child.pid, code=code)
            else:
                _log.error("actor_died", actor=child.name, pid=child.pid, code=code, pause_seconds=round(pause, 2))
                self._refuse_restarts(post, f"{post.name} ended with code {code} before it was ready")

    def _excuse_all(self, seconds: float) -> None:
        """When this process was stopped (by a signal, a frozen machine), what it has not heard proves nothing.

        Args:
            seconds: what a wait, or what should take no time, took too long.
        """
        if seconds <= _OVERSLEPT_SECONDS:
            return
        _log.warning("was_stopped", seconds=round(seconds, 1))
        for child in self._living():
            child.last_beat += seconds

    def _judge_the_late(self, clock: float) -> None:
        for child in self._living():
            if clock < child.limit():
                continue
            if child.judge() == "stalled":
                if child.state != "stalled":
                    _log.error(
                        "storage_stalled",
                        actor=child.name,
                        pid=child.pid,
                        remedy="the process waits for a disk in the kernel; check the storage",
                    )
                    child.state = "stalled"
                child.last_beat = clock
            elif clock > child.deadline:
                _log.warning("drain_cut", actor=child.name, pid=child.pid)
                child.kill()
                child.deadline = clock + 5.0
            else:
                silent = round(clock - child.last_beat, 1)
                _log.error("actor_hung", actor=child.name, pid=child.pid, silent_seconds=silent)
                child.kill()
                child.last_beat = clock

    # Commands.

    def _handle(self, request: messages.Message, asker: Asker) -> None:
        if isinstance(request, messages.GetStatus):
            asker.answer(report.status(self._posts, self._leaving, self._board))
        elif isinstance(request, messages.RestartActors):
            chosen = [post for post in self._posts if request.target in (post.kind, post.name)]
            if self._stopping is not None:
                asker.answer(messages.Refused(reason="the gateway is stopping", transient=True))
            elif not chosen:
                known = ", ".join(sorted({post.kind for post in self._posts} | {post.name for post in self._posts}))
                asker.answer(messages.Refused(reason=f"there is no actor {request.target!r}: there are {known}"))
            else:
                _log.info("restart_asked", actors=request.target)
                self._restarting.append((chosen, asker))
                for post in chosen:
                    self._replace(post)

    def _replace(self, post: Post) -> None:
        """A receiver's successor starts first; others hold endpoints, so the old one has to leave first."""
        if post.child is None:
            post.start_now()
        elif post.kind == "receiver":
            if post.successor is None:
                post.successor = self._spawn(post)
            if post.successor is None:
                self._refuse_restarts(post, "too many receivers that were replaced still finish associations: wait")
        elif post.child.state != "draining":
            post.child.drain(self._settings.services.stop_seconds, gateway_stops=False)

    def _answer_restarts(self) -> None:
        for waiting in list(self._restarting):
            posts, asker = waiting
            if all(post.filled for post in posts):
                self._restarting.remove(waiting)
                asker.answer(messages.Done(affected=len(posts)))

    def _refuse_restarts(self, post: Post, reason: str) -> None:
        for waiting in [waiting for waiting in self._restarting if post in waiting[0]]:
            self._restarting.remove(waiting)
            waiting[1].answer(messages.Refused(reason=reason))

    # Signals.

    def _take_signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._reload_settings()
        elif self._stopping is None:
            _log.info("stopping", signal=signal.Signals(number).name)
            self._notifier.stopping(self._settings.services.stop_seconds)
            self._listeners.close()
            self._stopping = list(KINDS)
            self._stop_deadline = time.monotonic() + self._settings.services.stop_seconds - 0.5
            for child in self._leaving:
                child.drain(self._settings.services.stop_seconds * _RECEIVERS_SHARE, gateway_stops=True)
            for post in self._posts:
                if post.successor is not None:
                    post.successor.kill()

    def _stop_next(self) -> None:
        """Stop the kinds in flow order, each when the one before it is gone."""
        while self._stopping:
            kind = self._stopping[0]
            there = [post.child for post in self._posts if post.kind == kind and post.child is not None]
            if kind == "receiver":
                there += self._leaving
            if not there:
                self._stopping.pop(0)
                continue
            left = max(0.2, self._stop_deadline - time.monotonic())
            share = _RECEIVERS_SHARE if kind == "receiver" else 0.5
            for child in there:
                if child.state != "draining":
                    child.drain(left * share, gateway_stops=True)
            break
        if time.monotonic() > self._stop_deadline:
            for child in self._living():
                _log.warning("stop_cut", actor=child.name, pid=child.pid)
                child.kill()
            self._stop_deadline += 1.0

    def _reload_settings(self) -> None:
        self._notifier.reloading()
        try:
            self._take_settings(self._reload())
        except AdapterError as error:
            _log.error("reload_refused", reason=str(error), remedy="mend the configuration; the old one stays")
        finally:
            self._notifier.reloaded()

    def _take_settings(self, settings: Settings) -> None:
        """Put new settings in force.

        Raises:
            ConfigurationError: they differ in what only a new supervisor can take.
        """
        replaced = kinds_replaced(self._settings, settings)
        write_durably(settings_file(self._runtime), encode(settings), 0o600)
        self._settings = settings
        set_up(settings, "supervisor")
        for post in self._posts:
            if post.child is not None:
                post.child.tell_settings_changed()
            if post.successor is not None:  # it may have read the old ones, and does not listen yet
                post.successor.outdated = True
            if post.kind in replaced:
                self._replace(post)
        _log.info("reloaded", restarted=",".join(sorted(replaced)) or "nothing")

    def _tell_systemd(self) -> None:
        if not self._ready and all(post.filled for post in self._posts):
            self._ready = True
            _log.info("all_ready", actors=len(self._posts))
            self._notifier.ready()
        self._notifier.status(report.sentence(self._posts, self._board, stopping=self._stopping is not None))


def run(settings: Settings, reload: Callable[[], Settings]) -> int:
    """Run the gateway until it is stopped; returns the exit code.

    Args:
        settings: the effective settings.
        reload: loads them anew, for SIGHUP.

    Raises:
        AdapterError: it cannot start: a port is taken, the storage cannot be used or is in use.
    """
    set_up(settings, "supervisor")
    return Supervisor(settings, reload).run()


def _drain_pipe(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(fd, 4096)
