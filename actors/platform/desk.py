"""Where the submitter's commands are taken in: all of a turn share one commit, and the syncs of their directories.

When many groups close at once, the disk would otherwise be waited for five times a job, one job after the other.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future

import msgspec

from actors.platform.repeating import AWAY, OUT_OF
from actors.platform.runs import Runs
from protocol import killpoints, messages
from protocol.availability import LEDGER_AWAY, Availability
from protocol.errors import RefusedError
from protocol.ledger import Ledger, Pipeline, Run, row_where
from protocol.states import RunState

Command = messages.CreateRun | messages.AddRunMetadata | messages.StartRun


class Desk:
    """Takes commands, and settles them together.

    Args:
        ledger: the ledger.
        availability: told of every commit.
        runs: the runs.
        queued: called with each run that is Pending now, after that was committed.
    """

    def __init__(self, ledger: Ledger, availability: Availability, runs: Runs, queued: Callable[[Run], None]) -> None:
        self._ledger = ledger
        self._availability = availability
        self._runs = runs
        self._queued = queued
        self._taken: list[tuple[Command, Future[messages.Message]]] = []

    def take(self, command: Command) -> "Future[messages.Message]":
        """Have a command done with the others of this turn; each may be repeated."""
        if isinstance(command, messages.CreateRun):
            command = msgspec.structs.replace(command, pipeline_id=command.pipeline_id.lower())  # as IDs are made
        answer: Future[messages.Message] = Future()
        self._taken.append((command, answer))
        return answer

    def settle(self) -> None:
        """Do what was taken, and answer."""
        if not self._taken:
            return
        taken, self._taken = self._taken, []
        queued: list[Run] = []
        try:
            answers = self._do([command for command, _ in taken], queued)
        except LEDGER_AWAY as error:
            self._availability.failed(error)
            answers, queued = [AWAY] * len(taken), []
        if queued:
            killpoints.reach("platform.run-queued")
        for run in queued:
            self._queued(run)
        for (_, waiting), answer in zip(taken, answers, strict=True):
            waiting.set_result(answer)

    def _do(self, commands: Sequence[Command], queued: list[Run]) -> list[messages.Message]:
        if self._availability.paused:
            return [AWAY] * len(commands)  # each try may take as long as the ledger's patience
        no_room = self._make_room([command for command in commands if isinstance(command, messages.CreateRun)])
        answers: list[messages.Message] = []
        with self._ledger.transaction():
            for command in commands:
                try:
                    answers.append(self._answer(command, queued, no_room))
                except RefusedError as error:
                    answers.append(messages.Refused(reason=str(error)))
        self._availability.committed()
        if any(isinstance(command, messages.CreateRun) for command in commands):
            killpoints.reach("platform.run-created")
        return answers

    def _make_room(self, commands: Sequence[messages.CreateRun]) -> messages.Refused | None:
        """Make the directories of new runs, before the ledger is locked; what is refused when there is no room."""
        new = [
            command.job_id
            for command in commands
            if self._runs.of_job(command.job_id) is None and _is_registered(command.pipeline_id)
        ]
        try:
            self._runs.make_directories(new)
        except OSError as error:
            if error.errno not in OUT_OF:
                raise
            return messages.Refused(reason=f"the platform has no room now ({error.strerror})", transient=True)
        return None

    def _answer(self, command: Command, queued: list[Run], no_room: messages.Refused | None) -> messages.Message:
        """Do one, in the transaction of all.

        Raises:
            RefusedError: it cannot be done; nothing was written.
        """
        if isinstance(command, messages.CreateRun):
            run = self._runs.of_job(command.job_id)
            if run is None:
                if not _is_registered(command.pipeline_id):
                    raise RefusedError(unregistered(command.pipeline_id))
                if no_room is not None:
                    return no_room
                run = self._runs.create(command)
            return self._runs.describe(run)
        run = self._runs.get(command.run_id)
        if isinstance(command, messages.AddRunMetadata):
            self._runs.add_metadata(run, command.metadata)
            return messages.Done(affected=1)
        state = RunState(run.state)
        if state is RunState.CANCELED:
            raise RefusedError(f"the run {run.run_id} was canceled: it cannot be started any more")
        if state is not RunState.CREATED:
            return messages.Done()  # it was started before, and stays as it is
        self._runs.move(run, RunState.PENDING)
        queued.append(run)
        return messages.Done(affected=1)


def _is_registered(pipeline_id: str) -> bool:
    return row_where(Pipeline, "pipeline_id", pipeline_id) is not None


def unregistered(pipeline_id: str) -> str:
    """Why a job cannot be run, and what to do about it.

    Args:
        pipeline_id: as the job names it.
    """
    return (
        f"the pipeline {pipeline_id} is not registered with the embedded platform: register it (dicom-adapter create "
        f"pipeline --id {pipeline_id}) and retry the job; or correct the AE title's settings, or the request, discard "
        "the job, and send its study again"
    )
