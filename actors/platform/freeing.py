"""Frees what runs that are over have left, when nobody needs it: the last step of a result's life.

A result without export tasks stays, since somebody may fetch it from where it lies. One whose export failed, or missed
some of its files, stays too. What is exported is kept for a day, while there is room. What a failed run has read:
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
from protocol import killpoints
from protocol.availability import LEDGER_AWAY, Availability
from protocol.clock import NANOSECONDS
from protocol.ledger import PAGE_ROWS, Delivery, ExportTask, Result, Run, tuples
from protocol.states import DeliveryState, TaskState

if TYPE_CHECKING:
    from actors.platform.platform import Platform

_LOOK_SECONDS, _SHORT_LOOK_SECONDS = 30.0, 2.0
_KEPT_SECONDS = 24 * 3600.0
_NEW_SECONDS = 60.0  # in which the exporter may not have made all tasks of a result; some registers a pipeline itself
_OVER = (TaskState.SUCCEEDED, TaskState.CANCELED)


class Exported(msgspec.Struct, frozen=True):
    """A run whose results every destination has."""

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

    def _look(self) -> None:
        is_short = self._actor.board.is_short
        if self._under_way or self._actor.draining or self._availability.paused:
            return
        if is_short or time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_SECONDS
            self._under_way = True
            self._availability.attempt(lambda: self._inputs.give_up(is_short=is_short))
            payloads = self._inputs.take()
            self._actor.in_thread(lambda: self._free(0.0 if is_short else _KEPT_SECONDS, payloads))

    def _free(self, kept_seconds: float, payloads: Sequence[str]) -> None:
        """In a thread. Of results the files go first: a kill before the commit costs a repetition."""
        self._inputs.remove(payloads)
        try:
            for found in exported(kept_seconds):
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

    def _forget(self, found: Exported) -> None:
        self._runs.forget_result(found.run_id)
        self._freed(found.kept_bytes)
        self._actor.log.info("results_freed", run_id=found.run_id, bytes=found.kept_bytes)

    def _ended(self) -> None:
        self._under_way = False


def exported(kept_seconds: float) -> Iterator[Exported]:
    """Runs whose results need not be kept any more, at most a page of them.

    Args:
        kept_seconds: how long results stay after their last destination had them.

    Raises:
        peewee.PeeweeException: the ledger does not answer.
    """
    until = time.time_ns() - int(kept_seconds * NANOSECONDS)
    task = ExportTask.alias()
    # A task need not name its payload: then its job says which it is.
    of_result = (task.payload_id == Result.payload_id) | task.job_id.in_((Result.job_id, Result.run_id))
    begun = task.select(task.task_id).where(of_result)
    unfinished = task.select(task.task_id).where(of_result & (task.state.not_in(_OVER) | (task.updated_ns > until)))
    undelivered = (
        Delivery.select(Delivery.delivery_id)
        .join(task, on=(task.task_id == Delivery.task_id))
        .where(of_result & (task.state == TaskState.SUCCEEDED) & (Delivery.state != DeliveryState.DELIVERED))
    )
    query = Result.select(Result.run_id, Result.payload_id, Run.kept_bytes).join(Run, on=(Run.run_id == Result.run_id))
    is_old = Result.created_ns < time.time_ns() - int(_NEW_SECONDS * NANOSECONDS)
    query = query.where(is_old & pw.fn.EXISTS(begun) & ~pw.fn.EXISTS(unfinished) & ~pw.fn.EXISTS(undelivered))
    for run_id, payload_id, kept_bytes in tuples(query.limit(PAGE_ROWS)):
        yield Exported(run_id, payload_id, kept_bytes)
