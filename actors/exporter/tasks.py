"""Export tasks that are under way, in memory: what is still to be sent where, and what a try means for the task."""

import threading
from collections.abc import Mapping, Sequence

import msgspec

from actors.exporter.destinations import Target
from actors.exporter.sender import OutgoingFile
from protocol.ledger import ExportTask
from protocol.states import TaskState

SUCCESS, FAILURE, RETRY = "success", "failure", "retry"
"""What a results service is told of a task (`ExportTask.report`)."""


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """A task's files on this machine.

    Args:
        paths: of those that are there, by their names in the task.
        problems: why the others are not, by their names; without patient data.
        refused: why the task is hopeless; "" when it is not.
        too_early: whether the payload is not complete yet, which is no failure.
    """

    paths: Mapping[str, str] = {}
    problems: Mapping[str, str] = {}
    refused: str = ""
    too_early: bool = False


class Missing(msgspec.Struct, kw_only=True):
    """A delivery that is still to be made."""

    delivery_id: int
    uri: str
    tries: int


class Batch:
    """What one destination still has to get of a task.

    Args:
        task: whose files they are.
        target: where they go.
        missing: the deliveries.
        paths: of the files.
    """

    def __init__(
        self, task: "ActiveTask", target: Target, missing: Sequence[Missing], paths: Mapping[str, str]
    ) -> None:
        self.task = task
        self.target = target
        # What a destination has broken off at comes last, so that it keeps nothing else from going.
        self._missing = {each.uri: each for each in sorted(missing, key=lambda each: each.tries)}
        self.files = [OutgoingFile(uri=each.uri, path=paths[each.uri]) for each in self._missing.values()]
        self.progress = False

    @property
    def lane(self) -> str:
        """The destination's name."""
        return self.target.name

    @property
    def is_scu(self) -> bool:
        """Which slots it takes."""
        return self.target.is_scu

    @property
    def unanswered(self) -> list[Missing]:
        """Deliveries that nothing was reported of, in the order in which they are sent."""
        return list(self._missing.values())

    def answered(self, uri: str) -> Missing | None:
        """A delivery of which something is reported; None when something was before."""
        return self._missing.pop(uri, None)


class ActiveTask:
    """A task that is under way.

    Args:
        row: its row; its state is InProgress.
    """

    def __init__(self, row: ExportTask) -> None:
        self.row = row
        self.stopping = threading.Event()
        self.targets: tuple[str, ...] = ()
        self.batches: set[Batch] = set()
        self.problem = ""
        self.unreachable = ""  # what was wrong with the destination that was reached least
        self.rests = 0.0  # seconds until the rest of it may go: a destination is down, and was not tried
        self.over = False


class Count(msgspec.Struct):
    """How many deliveries to one destination are done, and how many are to be tried again."""

    delivered: int = 0
    pending: int = 0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a try means for a task.

    Args:
        state: its next state; Pending means another try.
        report: what its results service is to be told.
        failed: files that are not delivered, at the worst destination.
    """

    state: TaskState
    report: str
    failed: int


def judge(
    *,
    files: int,
    counts: Sequence[Count],
    threshold: float,
    retries: int,
    most_retries: int,
    hopeless: bool = False,
) -> Verdict:
    """Decide what becomes of a task after a try, as the original did: by the share of files that failed.

    Args:
        files: of the task.
        counts: for each destination.
        threshold: the largest share that is a success.
        retries: before this try.
        most_retries: see `maximumRetries`.
        hopeless: whether another try could change nothing.
    """
    failed = max((files - count.delivered for count in counts), default=files)
    if files and failed / files <= threshold and not hopeless:
        return Verdict(state=TaskState.SUCCEEDED, report=SUCCESS, failed=failed)
    if hopeless or not files or retries >= most_retries:
        return Verdict(state=TaskState.FAILED, report=FAILURE, failed=failed)
    return Verdict(state=TaskState.PENDING, report=RETRY, failed=failed)
