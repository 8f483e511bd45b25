"""A task's files on this machine: results of the embedded platform where they lie, others downloaded from the platform.

Everything here may run in any thread. What was downloaded for a task is deleted when its try is over.
"""

import os
import shutil
import stat
import threading
from collections.abc import Callable, Collection, Iterable
from typing import BinaryIO, Protocol

from actors.exporter.tasks import Fetched
from protocol.errors import RefusedError, StorageError, UnavailableError
from protocol.ledger import ExportTask, Result, Run
from protocol.platforms.base import PlatformError
from protocol.spool import DIRECTORY_MODE, FILE_MODE, Spool
from protocol.states import RUN_UNDER_WAY, RunState

_MOST_SILENT = 2
"""Files in a row for which the platform does not answer."""
_REASON_NONE = "the payload has no such file"


class Downloads(Protocol):
    """What is needed of a platform (`protocol.platforms`)."""

    def download(self, payload_id: str, name: str, target: BinaryIO) -> None:
        """Write a file of a payload to an open file.

        Raises:
            RefusedError: it is not there.
            UnavailableError, StorageError: it cannot be had now.
            PlatformError: the platform failed.
        """


class Payloads:
    """Finds, or downloads, the files of tasks.

    Args:
        spool: where downloads go.
        platform: where they come from; None when the platform is the embedded one.
        has_room: whether the disk may take downloads now.
    """

    def __init__(self, spool: Spool, platform: Downloads | None, has_room: Callable[[], bool]) -> None:
        self._root = spool.root / "exports"
        self._spool = spool
        self._platform = platform
        self._has_room = has_room
        self._root.mkdir(mode=DIRECTORY_MODE, exist_ok=True)

    def fetch(self, task: ExportTask, uris: Collection[str], stopping: threading.Event) -> Fetched:
        """Find files of a task.

        Args:
            task: whose files.
            uris: their names in its payload.
            stopping: set when nobody needs them any more.

        Raises:
            UnavailableError: the platform does not answer.
            StorageError: there is no room.
            peewee.PeeweeException: the ledger does not answer.
        """
        run = _run_of(task)
        if run is not None:
            return self._of_run(run, uris)
        if self._platform is None:
            return Fetched(refused="the task's payload is not known here: no run of the embedded platform has it")
        return self._download(self._platform, task, uris, stopping)

    def discard(self, task_id: str) -> None:
        """Delete what was downloaded for a task."""
        shutil.rmtree(self._root / task_id, ignore_errors=True)

    def discard_all_but(self, task_ids: Iterable[str]) -> None:
        """Delete what another process has left."""
        for name in set(os.listdir(self._root)) - set(task_ids):
            self.discard(name)

    def _of_run(self, run: Run, uris: Iterable[str]) -> Fetched:
        state = RunState(run.state)
        if state in RUN_UNDER_WAY:
            return Fetched(too_early=True)
        if state is not RunState.SUCCEEDED:
            remedy = "retry its job, and then this task" if run.keeps_input else "see its job"
            return Fetched(refused=f"the run that should have made the files ended as {state}: {remedy}")
        row = Result.get_or_none(Result.run_id == run.run_id)
        output = self._spool.platform / run.payload_id / "runs" / str(run.tries) / "output"
        root = os.path.realpath(row.directory if row is not None else output)
        paths, problems = {}, {}
        for uri in uris:
            path = _inside(root, uri)
            if path is None:
                problems[uri] = _REASON_NONE
            else:
                paths[uri] = path
        return Fetched(paths=paths, problems=problems)

    def _download(
        self, platform: Downloads, task: ExportTask, uris: Collection[str], stopping: threading.Event
    ) -> Fetched:
        if not self._has_room():
            raise StorageError("the disk has no room for downloads now: see dicom-adapter status")
        directory = self._root / task.task_id
        self.discard(task.task_id)
        directory.mkdir(mode=DIRECTORY_MODE)
        paths, problems = {}, {}
        silent: list[UnavailableError] = []
        for number, uri in enumerate(uris):
            if stopping.is_set():
                break
            path = directory / f"{number:06d}"
            try:
                with open(path, "xb", opener=_private) as target:
                    platform.download(task.payload_id, uri, target)
                paths[uri] = str(path)
            except RefusedError:
                problems[uri] = _REASON_NONE
            except PlatformError as error:
                problems[uri] = f"it could not be downloaded: {error}"
            except UnavailableError as error:
                problems[uri] = f"it could not be downloaded: {error}"
                silent.append(error)
                if len(silent) >= _MOST_SILENT:
                    break
                continue
            silent.clear()
        if len(silent) >= _MOST_SILENT or (silent and not paths):
            raise silent[-1]  # it is the platform that is away, and no fault of the files
        return Fetched(paths=paths, problems=problems)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, FILE_MODE | 0o200)


def _run_of(task: ExportTask) -> Run | None:
    """The run of the embedded platform whose payload a task means: by its payload, else by its job."""
    run: Run | None = None
    if task.payload_id:
        run = Run.get_or_none(Run.payload_id == task.payload_id)
    if run is None and task.job_id:
        run = Run.get_or_none((Run.job_id == task.job_id) | (Run.run_id == task.job_id))
    return run


def _inside(root: str, uri: str) -> str | None:
    """The path of a regular file below a directory, whatever its name and links in it say; None when it is none."""
    try:
        path = os.path.realpath(os.path.join(root, uri.lstrip("/")), strict=True)
        if os.path.commonpath((root, path)) == root and stat.S_ISREG(os.stat(path).st_mode):
            return path
    except (OSError, ValueError):
        pass
    return None
