"""The embedded platform as others see it: commands to the platform actor, hard links into its directories."""

import contextlib
import errno
import os
import secrets
import shutil
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import BinaryIO

from protocol import killpoints, messages
from protocol.bus import Bus, Client
from protocol.channels import PLATFORM_COMMANDS
from protocol.errors import RefusedError, StorageError, UnavailableError
from protocol.ledger import PAGE_ROWS, Result, Run, tuples
from protocol.ledger.runs import keeps_input
from protocol.platforms.base import (
    JobRequest,
    PayloadFile,
    Platform,
    PlatformJob,
    PlatformState,
    Sought,
    StepInterruptedError,
)
from protocol.spool import DIRECTORY_MODE, FILE_MODE, sync_directory
from protocol.states import RUN_UNDER_WAY, RunState

# One question waits so long; the same command is then repeated, since an answer may be lost with a platform actor
# that is restarted, until patience ends. So a restart costs a pause and no try.
_ANSWER_SECONDS = 2.0
_PAUSE_SECONDS = 0.2
PATIENCE_SECONDS = 15.0

_COPY_BYTES = 1 << 20
_NO_LINK = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP})


class EmbeddedPlatform(Platform):
    """Talks to the platform actor.

    Args:
        bus: of this process.
        stopping: set when this process is about to end.
        patience_seconds: how long a command is repeated before the platform counts as unreachable.
    """

    unfinished_states = (RunState.PENDING.value, RunState.RUNNING.value, RunState.CREATED.value)

    def __init__(self, bus: Bus, stopping: threading.Event, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._bus = bus
        self._stopping = stopping
        self._patience_seconds = patience_seconds
        self._of_thread = threading.local()

    def find(self, sought: Sought) -> PlatformJob | None:
        """Look a job up by our UUID."""
        answer = self._ask(messages.FindRun(job_id=sought.job_id))
        return _job(sought.job_id, answer) if isinstance(answer, messages.RunCreated) else None

    def create(self, request: JobRequest) -> PlatformJob:
        """Create a job, or find it when it was created before."""
        command = messages.CreateRun(
            job_id=request.job_id,
            name=request.name,
            pipeline_id=request.pipeline_id,
            priority=request.priority,
            metadata=request.metadata,
        )
        answer = self._ask(command)
        assert isinstance(answer, messages.RunCreated)
        return _job(request.job_id, answer)

    def add_metadata(self, job: PlatformJob, metadata: Mapping[str, str]) -> None:
        """Add metadata."""
        self._ask(messages.AddRunMetadata(run_id=job.platform_job_id, metadata=dict(metadata)))

    def upload(self, job: PlatformJob, files: Sequence[PayloadFile], *, again: bool) -> None:  # noqa: ARG002 - see _put
        """Link files into the payload directory, then sync each directory once."""
        made: set[str] = set()
        within, fd = None, -1  # the directory that the last file went into
        try:
            for file in files:
                if self._stopping.is_set():
                    raise StepInterruptedError("the upload goes on in the next process")
                below, _, name = file.name.rpartition("/")
                if below != within:
                    directory = os.path.join(job.payload_directory, below) if below else job.payload_directory
                    if directory not in made:
                        os.makedirs(directory, DIRECTORY_MODE, exist_ok=True)
                        made.add(directory)
                    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                    if fd >= 0:
                        os.close(fd)
                    within, fd = below, opened
                try:
                    os.link(file.path, name, dst_dir_fd=fd)
                except OSError:
                    _put(file.path, os.path.join(job.payload_directory, file.name))
                killpoints.reach("submitter.file-linked")
            for directory in _with_parents(made, job.payload_directory):
                sync_directory(directory)
        except OSError as error:
            raise StorageError(
                f"a file of the payload could not be linked into {job.payload_directory}: {error.strerror}"
            ) from error
        finally:
            if fd >= 0:
                os.close(fd)

    def start(self, job: PlatformJob) -> None:
        """Queue the job's pipeline."""
        self._ask(messages.StartRun(run_id=job.platform_job_id))

    def cancel(self, sought: Sought) -> None:
        """Give a job up, if the platform has it."""
        job = self.find(sought)
        if job is not None:
            self._ask(messages.CancelRun(run_id=job.platform_job_id))

    def rerunnable(self, job_ids: Sequence[str]) -> list[str]:
        """Read the platform's rows: failed runs whose input is kept."""
        query = Run.select(Run.job_id).where(keeps_input() & (Run.state == RunState.FAILED))
        query = query.where(Run.job_id.in_(job_ids)) if job_ids else query
        return [job_id for (job_id,) in tuples(query)]

    def run_again(self, job_ids: Sequence[str], decided_ns: int) -> int:
        """Queue failed jobs whose input is kept."""
        answer = self._ask(messages.RunAgain(job_ids=tuple(job_ids), decided_ns=decided_ns))
        return answer.affected if isinstance(answer, messages.Done) else 0

    def states(self, jobs: Sequence[Sought]) -> dict[str, PlatformState]:
        """Read the platform's rows; no command is needed for this."""
        found: dict[str, PlatformState] = {}
        for first in range(0, len(jobs), PAGE_ROWS):
            page = [job.job_id for job in jobs[first : first + PAGE_ROWS]]
            for job_id, state in tuples(Run.select(Run.job_id, Run.state).where(Run.job_id.in_(page))):
                found[job_id] = PlatformState(name=state, final=state not in RUN_UNDER_WAY)
        return found

    def download(self, payload_id: str, name: str, target: BinaryIO) -> None:
        """Copy a file that the payload's run left; only what is registered as its result can be named."""
        row = Result.get_or_none(Result.payload_id == payload_id)
        if row is None or name not in row.files:
            raise RefusedError("the payload has no such file: its run left none of this name")
        try:
            with open(os.path.join(row.directory, name), "rb") as source:
                shutil.copyfileobj(source, target, _COPY_BYTES)
        except FileNotFoundError:
            raise RefusedError(f"a result of payload {payload_id} is not there any more") from None
        except OSError as error:
            raise StorageError(f"a result of payload {payload_id} could not be copied: {error.strerror}") from error

    def _ask(self, command: messages.Message) -> messages.Message:
        """Ask until there is an answer, or patience ends; all commands may be repeated."""
        deadline = time.monotonic() + self._patience_seconds
        while True:
            if self._stopping.is_set():
                raise StepInterruptedError("the command is repeated by the next process")
            try:
                return self._client().ask(command, min(_ANSWER_SECONDS, self._patience_seconds))
            except UnavailableError:
                if time.monotonic() >= deadline:
                    raise
            self._stopping.wait(_PAUSE_SECONDS)

    def _client(self) -> Client:
        client: Client | None = getattr(self._of_thread, "client", None)
        if client is None:
            client = self._of_thread.client = self._bus.client(PLATFORM_COMMANDS)
        return client


def _job(job_id: str, answer: messages.RunCreated) -> PlatformJob:
    return PlatformJob(
        job_id=job_id,
        platform_job_id=answer.run_id,
        payload_id=answer.payload_id,
        payload_directory=answer.payload_directory,
        metadata=answer.metadata,
        started=answer.state is not RunState.CREATED,
    )


def _put(source: str, target: str) -> None:
    """Link a file, or copy it where no link can be made; what an earlier try put there stays."""
    while True:
        try:
            os.link(source, target)
        except FileExistsError:
            have, want = os.stat(target), os.stat(source)
            # Another inode of this size is a copy, whole since it was named.
            if os.path.samestat(have, want) or have.st_size == want.st_size:
                return
            os.unlink(target)
        except FileNotFoundError:
            if os.path.exists(source):
                raise
            raise StorageError(f"the instance {source} is not in the spool any more: discard the job") from None
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            _copy(source, target)
            return
        else:
            return


def _copy(source: str, target: str) -> None:
    temporary = os.path.join(os.path.dirname(target), f".{secrets.token_hex(8)}")
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        writing = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        try:
            while os.sendfile(writing, reading, None, 1 << 30):
                pass
            os.fsync(writing)
        finally:
            os.close(writing)
        os.rename(temporary, target)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    finally:
        os.close(reading)


def _with_parents(directories: Collection[str], root: str) -> list[str]:
    """Directories and those above them up to a root, the deepest first."""
    found = {root}
    for directory in directories:
        above = directory
        while above not in found:
            found.add(above)
            above = os.path.dirname(above)
    return sorted(found, key=len, reverse=True)
