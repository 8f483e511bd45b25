"""Runs one command of a pipeline and outlives the platform actor: output, time limit, clean end, durable result.

Forked by `fork_server` with the arguments DIRECTORY LIMIT GRACE STOP UID GID GROUPS COMMAND…, the command's own
environment, and two descriptors. It needs the standard library alone, and little of that, since each shim has a copy of
what it touches: no `json`, no `signal` (which makes enumerations), and nothing that imports `re`.

The shim reaps every descendant of the command, so nothing of a run survives it: not what was left in the
background, not a daemon with a session of its own. SIGTERM, or the end of the supervisor, means: end the run,
it will be repeated; SIGUSR1 means: end it for good. The try's lock is held for as long as this process lives, and that
is how a new platform actor knows that the run goes on.
"""

# ruff: noqa: SIM105 # contextlib, collections and typing would be half of the time to the command

import _signal as signal  # type: ignore[import-not-found] # what `signal` wraps
import ctypes
import errno
import os
import resource
import select
import time

HEAD_BYTES = TAIL_BYTES = 64 * 1024
_READ_BYTES = 64 * 1024
_UNKILLABLE_SECONDS = 3.0  # after SIGKILL: what waits for a dead disk cannot hold up the gateway's end
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_NICE = 5  # receiving goes first
_OOM_SCORE = 500  # and when memory is short, pipelines go first
_OPEN_FILES = 1024

_libc = ctypes.CDLL(None, use_errno=True)


class Output:
    """What the command writes: its first bytes go to the log at once, its last ones at the end.

    Args:
        path: `output.log`.
    """

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        self._head_left = HEAD_BYTES
        self._tail = bytearray()
        self._left_out = 0

    def add(self, data: bytes) -> None:
        """Take what was read; never more than both ends are kept."""
        if self._head_left:
            head, data = data[: self._head_left], data[self._head_left :]
            self._head_left -= len(head)
            self._write(head)
        self._tail += data
        if len(self._tail) > 2 * TAIL_BYTES:
            self._trim()

    def close(self) -> None:
        """Write the end."""
        self._trim()
        if self._left_out:
            self._write(b"\n[... %d bytes left out ...]\n" % self._left_out)
        self._write(self._tail)
        os.close(self._fd)

    def _trim(self) -> None:
        surplus = max(0, len(self._tail) - TAIL_BYTES)
        self._left_out += surplus
        del self._tail[:surplus]

    def _write(self, data: bytes | bytearray) -> None:
        """A full disk costs the log, not the run."""
        try:
            if data:
                os.write(self._fd, data)
        except OSError:
            pass


class Shim:
    """One run.

    Args:
        arguments: as in the module's docstring; seconds for LIMIT (0: none), GRACE and STOP (from SIGTERM to SIGKILL
            when the run is ended, and when it is to be repeated); UID -1 keeps the user.
        environ: of the command.
        lock: descriptor of the try's lock; it is held until this process ends.
        alive: descriptor that ends when the supervisor is gone.
    """

    def __init__(self, arguments: list[str], environ: dict[str, str], *, lock: int, alive: int) -> None:
        self.directory, limit, grace, stop, uid, gid, groups = arguments[:7]
        self.command = arguments[7:]
        self._environ = environ
        self._alive, self._lock = alive, lock
        self._limit_seconds, self._grace_seconds, self._stop_seconds = float(limit), float(grace), float(stop)
        self._uid, self._gid = int(uid), int(gid)
        self._groups = [int(group) for group in groups.split(",") if group]
        self._child = -1
        self._status: int | None = None
        self._outcome = ""
        self._kill_at = float("inf")
        self._signals: list[int] = []
        self._output_ended = False
        self._reason = ""
        self._started_ns = 0

    def run(self) -> None:
        """Run the command to its end and write what became of it."""
        os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        wake = self._catch_signals()
        self._output = Output(f"{self.directory}/output.log")
        self._reading, writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reading, False)
        self._poll = select.poll()
        for fd, events in ((self._reading, select.POLLIN), (wake, select.POLLIN), (self._alive, 0)):
            self._poll.register(fd, events)
        self._wake = wake
        self._start_command(writing)
        os.close(writing)
        self._supervise()
        left_behind = self._end_descendants()
        self._read_output()
        self._output.close()
        self._write_result(left_behind)

    def _catch_signals(self) -> int:
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, lambda number, _: self._signals.append(number))
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        return reading

    # The command.

    def _start_command(self, output: int) -> None:
        failed_reading, failed = os.pipe2(os.O_CLOEXEC)
        shim = os.getpid()
        self._started_ns = time.time_ns()
        self._child = os.fork()
        if self._child == 0:
            self._become_command(output, failed, shim)
        os.close(failed)
        told = os.read(failed_reading, 16)  # nothing: the command runs
        os.close(failed_reading)
        if told:
            self._outcome, self._reason = "not_started", self._explain(int(told))
        elif self._limit_seconds > 0:
            self._limit_at = time.monotonic() + self._limit_seconds
            return
        self._limit_at = float("inf")

    def _become_command(self, output: int, failed: int, shim: int) -> None:
        """In the child: take on the command's session, limits and user, and execute it."""
        try:
            os.setsid()
            null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            for fd, target in ((null, 0), (output, 1), (output, 2)):
                os.dup2(fd, target)
            for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(_OPEN_FILES, hard), hard))
            try:
                os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC), b"%d" % _OOM_SCORE)
            except OSError:
                pass  # a sandbox may have it read-only
            os.nice(_NICE)
            os.umask(0o027)
            if self._uid >= 0:
                os.setgroups(self._groups)
                os.setgid(self._gid)
                os.setuid(self._uid)
            # What the service was given, such as the DICOM port's capability, is not the pipeline's.
            _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user would clear it
            if os.getppid() == shim:
                os.chdir(self._environ["OUTPUT_DIR"])
                self._execute()
        except Exception as error:
            os.write(failed, b"%d" % (getattr(error, "errno", None) or errno.EIO))
        finally:
            os._exit(127)

    def _execute(self) -> None:
        """Replace this process by the command; `os.execvpe` would import when the user may not read our library."""
        name, failure = self.command[0], OSError(errno.ENOENT, "")
        for directory in [""] if os.sep in name else self._environ["PATH"].split(os.pathsep):
            try:
                os.execve(os.path.join(directory, name), self.command, self._environ)  # noqa: S606 # a registered pipeline
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                failure = error
        raise failure

    def _explain(self, number: int) -> str:
        name = self.command[0]
        if number == errno.ENOENT and not (os.sep in name and os.path.exists(name)):
            return f"command not found: {name}"
        if number == errno.ENOENT:
            return f"the interpreter in the first line of {name} was not found"
        return f"the command {name} cannot be executed: {os.strerror(number)}"

    # Its life.

    def _supervise(self) -> None:
        """Until the command has ended, or cannot be ended."""
        while True:
            self._reap()
            clock = time.monotonic()
            if self._status is not None or clock >= self._kill_at + _UNKILLABLE_SECONDS:
                return
            if clock >= self._limit_at and not self._outcome:
                self._reason = f"time limit of {self._limit_seconds:g} s"
                self._end("timed_out", self._grace_seconds)
            if clock >= self._kill_at:
                _kill_all(_descendants())
                self._turn(0.1)
            else:
                self._turn((self._kill_at if self._outcome else self._limit_at) - clock)

    def _turn(self, seconds: float) -> None:
        """Wait for output, signals, or the supervisor's end, and see to them."""
        timeout = None if seconds == float("inf") else max(0, int(seconds * 1000) + 1)
        for fd, events in self._poll.poll(timeout):
            if fd == self._reading:
                self._read_output(1)
            elif fd == self._wake:
                try:
                    os.read(self._wake, 4096)
                except BlockingIOError:
                    pass
            elif events:
                self._poll.unregister(self._alive)
                self._end("stopped", self._stop_seconds)
        while self._signals:
            number = self._signals.pop(0)
            if number == signal.SIGTERM:
                self._end("stopped", self._stop_seconds)
            elif number == signal.SIGUSR1:
                self._end("canceled", self._grace_seconds)

    def _end(self, outcome: str, seconds: float) -> None:
        """Ask the command to end, and see to it that it does; what was decided first stays."""
        if not self._outcome:
            self._outcome = outcome
        self._kill_at = min(self._kill_at, time.monotonic() + seconds)
        if self._status is None:
            try:
                os.killpg(self._child, signal.SIGTERM)
            except ProcessLookupError:
                pass

    def _read_output(self, most: int = 64) -> None:
        """Read what there is, a bounded number of times, so that a flood never keeps us from the rest."""
        for _ in range(most):
            try:
                data = os.read(self._reading, _READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                if not self._output_ended:
                    self._poll.unregister(self._reading)
                    self._output_ended = True
                return
            self._output.add(data)

    def _reap(self) -> bool:
        """Collect what has ended; returns whether anything is left below us."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._child:
                self._status = status

    def _end_descendants(self) -> int:
        """Kill what the command left behind; returns how many processes that were."""
        found: set[int] = set()
        give_up = time.monotonic() + _UNKILLABLE_SECONDS
        while self._reap() and time.monotonic() < give_up:
            living = _descendants()
            found |= living
            _kill_all(living)
            self._turn(0.02)
        return len(found)

    # The result.

    def _write_result(self, left_behind: int) -> None:
        code = None if self._status is None else os.waitstatus_to_exitcode(self._status)
        result: dict[str, str | int | None] = {
            "outcome": self._outcome or "exited",
            "exit_code": code if code is not None and code >= 0 and self._outcome != "not_started" else None,
            "signal": -code if code is not None and code < 0 else None,
            "reason": self._reason,
            "started_ns": self._started_ns,
            "ended_ns": time.time_ns(),
            "left_behind": left_behind,
        }
        path, data = f"{self.directory}/result.json", _as_json(result)
        # It was made with room for the result, which must not be given up before it is written: the disk may be full.
        fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        os.pwrite(fd, data, 0)
        os.ftruncate(fd, len(data))
        os.fsync(fd)
        os.close(fd)
        os.rename(f"{path}.new", path)
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fsync(fd)
        os.close(fd)


def _as_json(values: dict[str, str | int | None]) -> bytes:
    """An object of texts, whole numbers and nulls."""
    members = []
    for name, value in values.items():
        text = "null" if value is None else _quoted(value) if isinstance(value, str) else str(value)
        members.append(f'"{name}": {text}')
    return ("{" + ", ".join(members) + "}").encode()


def _quoted(text: str) -> str:
    """A text; what are no characters, since an argument may be any bytes, become question marks."""
    text = text.encode("utf-8", "replace").decode()
    return '"' + "".join(f"\\u{ord(c):04x}" if c < " " or c in '"\\' else c for c in text) + '"'


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _kill_all(pids: set[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def _descendants() -> set[int]:
    """Process IDs below this process; ended ones that wait to be reaped are left out."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except OSError:
            continue  # it has ended meanwhile
        if state not in (b"Z", b"X"):
            children.setdefault(int(parent), []).append(int(entry))
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.update(below)
        waiting += below
    return found
