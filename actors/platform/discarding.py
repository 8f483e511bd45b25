"""A person gives up what runs have left: that is committed here; `freeing.py` deletes it when no export needs it."""

from concurrent.futures import Future
from typing import TYPE_CHECKING

from actors.platform.freeing import Freeing
from actors.platform.repeating import AWAY
from actors.platform.runs import Runs
from protocol import killpoints, messages
from protocol.availability import LEDGER_AWAY
from protocol.ledger import PAGE_ROWS
from protocol.states import RunState

if TYPE_CHECKING:
    from actors.platform.platform import Platform


class Discarding:
    """Finds in a thread what is meant, since there may be much, and commits it a page a turn.

    Args:
        actor: whose loop and threads are used.
        runs: all runs.
        freeing: told when there is something to delete.
    """

    def __init__(self, actor: "Platform", runs: Runs, freeing: Freeing) -> None:
        self._actor = actor
        self._runs = runs
        self._freeing = freeing

    def take(self, command: messages.DiscardRuns) -> "messages.Message | Future[messages.Message]":
        """Discard the results of runs that succeeded, or the inputs of those that failed; it may be repeated."""
        if self._actor.availability.paused:
            return AWAY
        if command.state is RunState.FAILED:
            try:
                count = self._freeing.discard_inputs(command)
            except LEDGER_AWAY as error:
                return self._away(error)
            self._tell(command, count)
            return messages.Done(affected=count)
        if command.state is not RunState.SUCCEEDED:
            return messages.Refused(reason=f"of runs that are {command.state} nothing can be discarded")
        answer: Future[messages.Message] = Future()
        self._actor.in_thread(lambda: self._find(command, answer))
        return answer

    def _find(self, command: messages.DiscardRuns, answer: "Future[messages.Message]") -> None:
        try:
            run_ids = self._runs.discardable(command)
        except LEDGER_AWAY as error:
            problem = error
            self._actor.post(lambda: answer.set_result(self._away(problem)))
        else:
            self._actor.post(lambda: self._commit(command, run_ids, 0, answer))

    def _commit(
        self, command: messages.DiscardRuns, run_ids: list[str], count: int, answer: "Future[messages.Message]"
    ) -> None:
        page, rest = run_ids[:PAGE_ROWS], run_ids[PAGE_ROWS:]
        try:
            count += self._runs.discard_results(page) if page else 0
        except LEDGER_AWAY as error:
            answer.set_result(self._away(error))
            return
        if rest:
            self._actor.post(lambda: self._commit(command, rest, count, answer))
            return
        self._tell(command, count)
        answer.set_result(messages.Done(affected=count))

    def _tell(self, command: messages.DiscardRuns, count: int) -> None:
        if count:
            killpoints.reach("platform.results-discarded")
            self._freeing.look_soon()
            self._actor.log.info("runs_discarded", runs=count, state=command.state.value)

    def _away(self, error: Exception) -> messages.Message:
        self._actor.availability.failed(error)
        return AWAY
