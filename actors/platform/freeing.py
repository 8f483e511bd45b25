"""Frees what runs that are over have left, when nobody needs it: the last step of a result's life.

What is exported is kept for a day, while there is room. A result without export tasks stays, since somebody may fetch
it from where it lies, and so does one of which an export missed some files: until a person discards it, or for as long
as the settings say. One whose export failed stays until a person has decided on that. What a failed run has read:
`kept_inputs.py`.
"""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import peewee as pw

from actors.platform.kept_inputs import KeptInputs
from actors.platform.leftovers import remove_tree
from actors.platform.runs import Runs
from protocol import killpoints, messages
from protocol.availability import LEDGER_AWAY, Availability
from protocol.clock import NANOSECONDS, CautiousClock
from protocol.ledger import PAGE_ROWS, Delivery, ExportTask, Result, Run, tuples
from protocol.ledger.results import NEEDS_NO_FILE, awaits_export, tasks_of_result
from protocol.states import DeliveryState, TaskState

if TYPE_CHECKING:
    from actors.platform.platform import Platform

_LOOK_SECONDS, _SHORT_LOOK_SECONDS = 30.0, 2.0
_LOOK_SHARE = 0.05  # of the time may go into looking
_DAY_NS = 86_400 * NANOSECONDS
_NEW_NS = 60 * NANOSECONDS  # in which a result may not be committed, and its pipeline may register exports itself


class Before(msgspec.Struct, frozen=True):
    """Since when results are not needed, in ns of the wall clock.

    Args:
        made_ns: what was made before this has its export tasks.
        exported_ns: what every destination has had since before this is not needed.
        old_ns: neither is anything else that was made, and whose exports ended, before this; 0 for none of that.
    """

    made_ns: int
    exported_ns: int
    old_ns: int = 0


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
        self._not_before = 0.0
        self._clock = CautiousClock()
        self._inputs = KeptInputs(actor, runs, self._clock)
        actor.every(_SHORT_LOOK_SECONDS, self._look)

    def discard_inputs(self, command: messages.JobsChosen) -> int:
        """Commit that a person gives up the inputs of failed runs, and delete them soon; returns of how many.

        Raises:
            peewee.PeeweeException: the ledger does not answer; it may be repeated.
        """
        count = self._inputs.discard(command)
        self.look_soon()
        return count

    def look_soon(self) -> None:
        """Something may be deleted now."""
        self._look_at = 0.0

    def _look(self) -> None:
        is_short, clock = self._actor.board.is_short, time.monotonic()
        if self._under_way or self._actor.draining or self._availability.paused or clock < self._not_before:
            return
        if is_short or clock >= self._look_at:
            self._look_at = clock + _LOOK_SECONDS
            self._under_way = True
            self._availability.attempt(lambda: self._inputs.give_up(is_short=is_short))
            payloads = self._inputs.take()
            before = self._before(is_short=is_short)
            self._actor.in_thread(lambda: self._free(before, payloads))

    def _before(self, *, is_short: bool) -> Before:
        now_ns, days = self._clock.now_ns(), self._actor.settings.services.platform.results_days
        return Before(
            made_ns=min(now_ns, self._actor.board.tasks_made_ns) - _NEW_NS,
            exported_ns=now_ns if is_short else now_ns - _DAY_NS,
            old_ns=now_ns - days * _DAY_NS if days else 0,
        )

    def _free(self, before: Before, payloads: Sequence[str]) -> None:
        """In a thread. Of results the files go first: a kill before the commit costs a repetition."""
        self._inputs.remove(payloads)
        began, looked, freed = time.monotonic(), 0.0, 0
        page: list[Unneeded] = []
        try:
            page = unneeded(before)
            looked = time.monotonic() - began
            for found in page:
                if self._actor.draining:
                    break
                # An export may have been registered since, and this may take long.
                if unneeded(before, Result.run_id == found.run_id) and self._remove(found):
                    freed += 1
        except LEDGER_AWAY as error:
            problem = error
            self._actor.post(lambda: self._availability.failed(problem))
        finally:
            there_is_more = bool(freed) and len(page) == PAGE_ROWS
            self._actor.post(lambda: self._ended(looked, there_is_more=there_is_more))

    def _remove(self, found: Unneeded) -> bool:
        """Whether it is deleted; one that makes trouble keeps no other from it."""
        home = self._runs.home(found.payload_id)
        try:
            counted = found.kept_bytes if home.exists() else 0  # what is gone was not counted at the start
            remove_tree(home)
        except OSError as error:
            remedy = "see what is wrong with the storage; it is tried again"
            self._actor.log.warning("results_not_freed", run_id=found.run_id, reason=error.strerror, remedy=remedy)
            return False
        killpoints.reach("platform.results-freed")
        self._actor.post(lambda: self._actor.surely(lambda: self._forget(found.run_id, counted)))
        return True

    def _forget(self, run_id: str, counted_bytes: int) -> None:
        self._runs.forget_result(run_id)
        self._freed(counted_bytes)
        self._actor.log.info("results_freed", run_id=run_id, bytes=counted_bytes)

    def _ended(self, looked_seconds: float, *, there_is_more: bool) -> None:
        """Look again at once when there is more, and else not so often that looking would cost much."""
        self._under_way = False
        if there_is_more:
            self.look_soon()
            self._look()
        elif looked_seconds > _LOOK_SHARE * _SHORT_LOOK_SECONDS:
            self._not_before = time.monotonic() + looked_seconds / _LOOK_SHARE


def unneeded(before: Before, *conditions: Any) -> list[Unneeded]:
    """Runs whose results need not be kept any more, at most a page of them.

    Those that every destination has, and those that a person has discarded, or that are old, when no export waits for
    them.

    Args:
        before: since when.
        conditions: on `Result`, which restrict it further.

    Raises:
        peewee.PeeweeException: the ledger does not answer.
    """
    task = ExportTask.alias()
    tasks = tasks_of_result(task)
    undelivered = (
        # Compared as it is, SQLite would look at all tasks in that state.
        tasks.where(task.state.concat("") == TaskState.SUCCEEDED)
        .join(Delivery, on=(Delivery.task_id == task.task_id))
        .where(Delivery.state != DeliveryState.DELIVERED)
    )
    unfinished = tasks.where(task.state.not_in(NEEDS_NO_FILE) | (task.updated_ns > before.exported_ns))
    is_exported = pw.fn.EXISTS(tasks) & ~pw.fn.EXISTS(unfinished) & ~pw.fn.EXISTS(undelivered)
    is_old = (Result.created_ns < before.old_ns) & ~pw.fn.EXISTS(tasks.where(task.updated_ns > before.old_ns))
    is_given_up = (Result.discarded | is_old) & ~awaits_export()
    query = Result.select(Result.run_id, Result.payload_id, Run.kept_bytes).join(Run, on=(Run.run_id == Result.run_id))
    query = query.where((Result.created_ns < before.made_ns) & (is_given_up | is_exported), *conditions)
    return [Unneeded(*row) for row in tuples(query.limit(PAGE_ROWS))]
