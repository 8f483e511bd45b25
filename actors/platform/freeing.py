"""Frees what runs that are over have left, when nobody needs it: the last step of a result's life.

What is exported is kept for a day, while there is room. A result without export tasks stays, since somebody may fetch
it from where it lies, and so does one of which an export missed some files: until a person discards it, or for as long
as the settings say. One whose export failed stays until a person has decided on that. What a failed run has read:
`kept_inputs.py`.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec
import peewee as pw

from actors.platform.kept_inputs import KeptInputs
from actors.platform.leftovers import remove_tree
from actors.platform.runs import Runs
from protocol import killpoints, messages
from protocol.availability import LEDGER_AWAY, Availability
from protocol.clock import NANOSECONDS
from protocol.ledger import PAGE_ROWS, Delivery, ExportTask, Result, Run, tuples
from protocol.ledger.results import NOT_WANTED, awaits_export, tasks_of_result
from protocol.states import DeliveryState, RunState, TaskState

if TYPE_CHECKING:
    from actors.platform.platform import Platform

_LOOK_SECONDS, _SHORT_LOOK_SECONDS = 30.0, 2.0
DAY_SECONDS = 24 * 3600.0
_NEW_SECONDS = 60.0  # in which the exporter may not have made all tasks of a result; some registers a pipeline itself


class Unneeded(msgspec.Struct, frozen=True):
    """A run whose results nobody needs."""

    run_id: str
    payload_id: str
    kept_bytes: int


class Freeing:
    """Looks for such runs every half a minute, more often when there is little room, and deletes in a thread.

    Args:
        actor: whose loop and threads are used.
        runs: all runs.
        freed: told how many bytes were deleted.
        availability: whether the ledger answers.
    """

    def __init__(self, actor: "Platform", runs: Runs, freed: Callable[[int], None], availability: Availability) -> None:
        self._actor = actor
        self._runs = runs
        self._freed = freed
        self._availability = availability
        self._under_way = False
        self._look_at = 0.0
        self._inputs = KeptInputs(actor, runs)
        actor.every(_SHORT_LOOK_SECONDS, self._look)

    def discard(self, command: messages.DiscardRuns) -> int:
        """Commit that a person gives up what runs have left, and delete it soon; returns of how many runs.

        Raises:
            peewee.PeeweeException: the ledger does not answer; it may be repeated.
        """
        is_failed = command.state is RunState.FAILED
        count = self._inputs.discard(command) if is_failed else self._runs.discard_results(command)
        if count:
            killpoints.reach("platform.results-discarded")
            self._look_at = 0.0
        return count

    def _look(self) -> None:
        is_short = self._actor.board.is_short
        if self._under_way or self._actor.draining or self._availability.paused:
            return
        if is_short or time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_SECONDS
            self._under_way = True
            self._availability.attempt(lambda: self._inputs.give_up(is_short=is_short))
            payloads = self._inputs.take()
            days = self._actor.settings.services.platform.results_days
            self._actor.in_thread(lambda: self._free(0.0 if is_short else DAY_SECONDS, days, payloads))

    def _free(self, exported_seconds: float, results_days: int, payloads: Sequence[str]) -> None:
        """In a thread. Of results the files go first: a kill before the commit costs a repetition."""
        self._inputs.remove(payloads)
        try:
            for found in unneeded(exported_seconds, results_days):
                remove_tree(self._runs.home(found.payload_id))
                killpoints.reach("platform.results-freed")
                self._actor.post(lambda found=found: self._actor.surely(lambda: self._forget(found)))  # type: ignore[misc]
        except LEDGER_AWAY as error:
            problem = error
            self._actor.post(lambda: self._availability.failed(problem))
        except OSError as error:
            self._actor.log.warning("results_not_freed", reason=error.strerror, remedy="remove them by hand")
        finally:
            self._actor.post(self._ended)

    def _forget(self, found: Unneeded) -> None:
        self._runs.forget_result(found.run_id)
        self._freed(found.kept_bytes)
        self._actor.log.info("results_freed", run_id=found.run_id, bytes=found.kept_bytes)

    def _ended(self) -> None:
        self._under_way = False


def unneeded(exported_seconds: float, results_days: int) -> Iterator[Unneeded]:
    """Runs whose results need not be kept any more, at most a page of them.

    Those that every destination has, and those that a person has discarded, or that are old, when no export waits for
    them.

    Args:
        exported_seconds: how long results stay after their last destination had them.
        results_days: how long all others stay; 0 is until a person discards them.

    Raises:
        peewee.PeeweeException: the ledger does not answer.
    """
    now = time.time_ns()
    task = ExportTask.alias()
    tasks = tasks_of_result(task)
    is_fresh = task.updated_ns > now - int(exported_seconds * NANOSECONDS)
    undelivered = (
        tasks.where(task.state == TaskState.SUCCEEDED)
        .join(Delivery, on=(Delivery.task_id == task.task_id))
        .where(Delivery.state != DeliveryState.DELIVERED)
    )
    unfinished = tasks.where(task.state.not_in(NOT_WANTED) | is_fresh)
    is_exported = pw.fn.EXISTS(tasks) & ~pw.fn.EXISTS(unfinished) & ~pw.fn.EXISTS(undelivered)
    oldest_ns = now - int(results_days * DAY_SECONDS * NANOSECONDS) if results_days else 0
    is_given_up = Result.discarded | (Result.created_ns < oldest_ns)
    query = Result.select(Result.run_id, Result.payload_id, Run.kept_bytes).join(Run, on=(Run.run_id == Result.run_id))
    is_old = Result.created_ns < now - int(_NEW_SECONDS * NANOSECONDS)
    query = query.where(is_old & (is_exported | (is_given_up & ~awaits_export())))
    for run_id, payload_id, kept_bytes in tuples(query.limit(PAGE_ROWS)):
        yield Unneeded(run_id, payload_id, kept_bytes)
