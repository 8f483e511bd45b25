"""One try of a run on disk, and the shim that carries it through.

    platform/PAYLOAD/payload/            hard links into the spool, made by the submitter; kept when it fails
    platform/PAYLOAD/runs/TRY/input/     what the pipeline reads
    platform/PAYLOAD/runs/TRY/output/    what it writes; kept
    platform/PAYLOAD/runs/TRY/tmp/       its TMPDIR
    platform/PAYLOAD/runs/TRY/output.log the beginning and the end of what it said; kept
    platform/PAYLOAD/runs/TRY/shim.lock  locked while the shim lives; holds its process ID
    platform/PAYLOAD/runs/TRY/result.json, before that result.json.new, which has room for it from the beginning

The lock is opened here and handed to the shim, so there is no moment at which a shim lives and the lock is free.
That is what makes attaching safe after this actor was killed: no process ID has to be trusted.
"""

import contextlib
import errno
import fcntl
import os
import signal
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from actors.platform.accounts import Account, check_reach
from actors.platform.inputs import Inputs
from actors.platform.launching import ForkServer, NoAnswerError
from actors.platform.leftovers import end_processes, remove_tree, sync_tree
from actors.platform.usage import own_bytes
from protocol.spool import DIRECTORY_MODE

_SHOWN_BYTES = 4096
_RESULT_BYTES = 4096
_LAUNCHES = 2  # the second by another fork server
_ROOM_FOR_PID = b" " * 16
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What the shim wrote at the end of a try.

    Args:
        outcome: `exited`, `timed_out`, `canceled`, `stopped` (to be repeated) or `not_started`.
        exit_code: of the command, if it exited by itself.
        signal: that ended the command.
        reason: what the shim has to say about it.
        started_ns, ended_ns: wall time.
        left_behind: processes that had to be ended.
    """

    outcome: str
    exit_code: int | None
    signal: int | None
    reason: str
    started_ns: int
    ended_ns: int
    left_behind: int


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long things may take.

    Args:
        run_seconds: the whole command; 0 is no limit.
        grace_seconds: from SIGTERM to SIGKILL when a run is ended for good.
        stop_seconds: the same when the gateway stops.
    """

    run_seconds: float
    grace_seconds: float
    stop_seconds: float


class Shim:
    """A living shim, started for this process or found.

    Args:
        pidfd: readable when it has ended.
    """

    def __init__(self, pidfd: int) -> None:
        self.pidfd = pidfd

    def cancel(self) -> None:
        """End the run for good."""
        self._send(signal.SIGUSR1)

    def stop(self) -> None:
        """End the run; it will be repeated."""
        self._send(signal.SIGTERM)

    def close(self) -> None:
        """Let go of it after it has ended."""
        os.close(self.pidfd)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)


class Attempt:
    """One try.

    Args:
        payload: `platform/PAYLOAD`.
        number: of the try, from 1.
    """

    def __init__(self, payload: Path, number: int) -> None:
        self.home = payload
        self.directory = payload / "runs" / str(number)
        self.input = self.directory / "input"
        self.output = self.directory / "output"
        self.log = self.directory / "output.log"
        self._tmp = self.directory / "tmp"
        self._lock = self.directory / "shim.lock"
        self._result = self.directory / "result.json"
        self._next_result = self.directory / "result.json.new"

    def prepare(self, inputs: Inputs, account: Account) -> int:
        """Make fresh directories, the input, and room for the result; returns how many bytes were copied.

        Raises:
            OSError: as the file system says.
            RefusedError: the account cannot reach them.
        """
        remove_tree(self.directory)
        self.directory.mkdir(mode=DIRECTORY_MODE, parents=True)
        if account.other:
            for above in (self.home.parent.parent, self.home.parent, self.home, self.home / "runs", self.directory):
                above.chmod(stat.S_IMODE(above.stat().st_mode) | stat.S_IXOTH)
            check_reach(account, self.input)
        copied = inputs.make(self.home / "payload", self.input, account)
        for directory in (self.output, self._tmp):
            directory.mkdir(mode=DIRECTORY_MODE)
            if account.other:
                os.chown(directory, account.uid, -1)
        _allocate(self._next_result, _RESULT_BYTES)
        return copied

    def launch(
        self, command: Sequence[str], job_id: str, account: Account, limits: Limits, server: ForkServer
    ) -> Shim | None:
        """Start the shim, which starts the command.

        Args:
            command: arguments, in which `{input}` and `{output}` are replaced.
            job_id: for the command's environment.
            account: who runs it.
            limits: see there.
            server: forks the shim.

        Returns:
            The shim; None when it was started, and has to be found (see `attach`) or has ended already.

        Raises:
            OSError: no process can be started now.
        """
        arguments = [
            *(str(self.directory), str(limits.run_seconds), str(limits.grace_seconds), str(limits.stop_seconds)),
            *(str(account.uid), str(account.gid), ",".join(map(str, account.groups))),
            *(self._filled_in(argument) for argument in command),
        ]
        environment = self._environment(job_id, account)
        for _ in range(_LAUNCHES):
            lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.pwrite(lock, _ROOM_FOR_PID, 0)  # blank until the shim says who it is
                return Shim(server.launch(arguments, environment, lock))
            except OSError:
                # No shim was started, so none was lost.
                self._lock.unlink()
                raise
            except NoAnswerError:
                pass
            finally:
                os.close(lock)
            if self._was_begun():
                return None
        self._lock.unlink()
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def _was_begun(self) -> bool:
        """Whether there is, or was, a shim; what it has written is looked at when it can write no more."""
        return self.is_running() or self._result.exists() or bool(self._lock.read_text(encoding="ascii").strip())

    def is_running(self) -> bool:
        """Whether its shim lives."""
        try:
            lock = os.open(self._lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def attach(self) -> Shim | None:
        """Find the living shim of a try that another process started; None when it has not yet said who it is."""
        pid = self._lock.read_text(encoding="ascii").strip()
        if not pid:
            return None
        try:
            pidfd = os.pidfd_open(int(pid))
        except ProcessLookupError:
            return None
        if not self.is_running():
            # It ended between the two looks, and its process ID may be another's by now.
            os.close(pidfd)
            return None
        return Shim(pidfd)

    def result(self) -> Result | None:
        """What the shim wrote; None when it was killed before it could."""
        with contextlib.suppress(FileNotFoundError):
            return msgspec.json.decode(self._result.read_bytes(), type=Result)
        return None

    def was_lost(self) -> bool:
        """Whether its shim was started and died without a result."""
        return self._lock.exists() and not self._result.exists()

    def shown_output(self) -> str:
        """The end of what the command said; it may hold patient data."""
        with contextlib.suppress(FileNotFoundError), open(self.log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _SHOWN_BYTES))
            text = file.read(_SHOWN_BYTES).decode("utf-8", "replace")
            # PostgreSQL's text has no NUL.
            return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
        return ""

    def copied_bytes(self) -> int:
        """What the input takes of its own, as far as can be seen."""
        return own_bytes(self.input)

    def written_bytes(self) -> int:
        """What the command has written until now."""
        return own_bytes(self.output, self._tmp, self.log)

    def kept_bytes(self) -> int:
        """What is left of the try now."""
        return own_bytes(self.directory)

    def end_what_is_left(self) -> int:
        """Kill the processes of a lost try; returns how many."""
        return end_processes(self.output)

    def give_up(self) -> None:
        """Remove what an unfinished try made. A lost one stays on record by its lock file."""
        if self.was_lost():
            for directory in (self.input, self._tmp, self.output):
                remove_tree(directory)
            self._next_result.unlink(missing_ok=True)
        else:
            remove_tree(self.directory)

    def keep_output(self) -> None:
        """Bring the output to stable storage."""
        sync_tree(self.output)

    def output_files(self) -> tuple[str, ...]:
        """Names of the files that the command has made, below the output directory, in a lasting order."""
        found: list[str] = []
        waiting = [os.fspath(self.output)]
        while waiting:  # `os.walk` recurses, and a pipeline may nest directories as deep as it likes
            with os.scandir(waiting.pop()) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
            waiting += [entry.path for entry in reversed(listed) if entry.is_dir(follow_symlinks=False)]
            # A name that is no UTF-8 can stand in no table, nor in a message.
            files = (entry.path for entry in listed if entry.is_file(follow_symlinks=False))
            found += [os.path.relpath(path, self.output) for path in files if _is_text(path)]
        return tuple(found)

    def clean(self, *, keep_payload: bool) -> None:
        """The run is over: remove all but this try's output, log and result.

        Args:
            keep_payload: and what it has read.
        """
        for directory in (self.input, self._tmp):
            remove_tree(directory)
        for file in (self._lock, self._next_result):
            file.unlink(missing_ok=True)
        for other in self.directory.parent.iterdir() if self.directory.parent.exists() else ():
            if other != self.directory:
                remove_tree(other)
        if not keep_payload:
            remove_tree(self.home / "payload")

    def _filled_in(self, argument: str) -> str:
        return argument.replace("{input}", str(self.input)).replace("{output}", str(self.output))

    def _environment(self, job_id: str, account: Account) -> Mapping[str, str]:
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        return {
            "PATH": _PATH,
            "LANG": "C.UTF-8",
            **passed_on,
            "HOME": account.home,
            "USER": account.name,
            "LOGNAME": account.name,
            "SHELL": "/bin/sh",
            "TMPDIR": str(self._tmp),
            "JOB_ID": job_id,
            "INPUT_DIR": str(self.input),
            "OUTPUT_DIR": str(self.output),
        }


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _allocate(path: Path, count: int) -> None:
    """Make a file with room for so many bytes, so that what is written later finds it also when the disk is full.

    Raises:
        OSError: there is no room.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        os.posix_fallocate(fd, 0, count)
    finally:
        os.close(fd)


def lost_tries(payload: Path) -> int:
    """How many tries of a run were lost."""
    runs = payload / "runs"
    if not runs.exists():
        return 0
    return sum(Attempt(payload, int(entry.name)).was_lost() for entry in runs.iterdir() if entry.name.isdigit())
