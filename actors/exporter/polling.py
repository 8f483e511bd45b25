"""Asks a results service of others for tasks, and tells it what became of them; an outage is told of once.

One thread does both, in turn: outcomes first, since a service that waits for one may offer its task again.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence

from actors.exporter.lanes import pause_seconds
from actors.exporter.results.base import Offer, ResultsService
from actors.exporter.tasks import RETRY, SUCCESS
from protocol.errors import AdapterError, RefusedError
from protocol.logs import EventLogger

_OFFERED_TASKS = 10
_MOST_ASKED_FOR = 250  # each may have thousands of names
_LONGEST_PAUSE_SECONDS = 30.0


class Poller:
    """One service's polls. Its callbacks are called in its thread.

    Args:
        service: whom to ask.
        agents: whose tasks.
        log: of the actor.
        may_take: whether more tasks may be taken now.
        offered: told of tasks.
        reported: told that the service knows one.
    """

    def __init__(  # each by name
        self,
        *,
        service: ResultsService,
        agents: Sequence[str],
        log: EventLogger,
        may_take: Callable[[], bool],
        offered: Callable[[Sequence[Offer]], None],
        reported: Callable[[str, str], None],
    ) -> None:
        self._service = service
        self._agents = agents
        self._log = log
        self._may_take = may_take
        self._offered = offered
        self._reported = reported
        self._failures = 0
        self._chance = random.Random()  # noqa: S311 # jitter
        self._not_before = 0.0
        self.answers = True

    @property
    def paused(self) -> bool:
        """Whether it is too early to ask again."""
        return time.monotonic() < self._not_before

    def turn(self, outcomes: Sequence[tuple[str, str]], held: int, stopping: threading.Event) -> None:
        """Tell outcomes, and ask for tasks.

        Args:
            outcomes: IDs of tasks, and what is to be told of each.
            held: how many tasks are not over yet: a service may list them first until it is told, and that must not
                hide those behind them.
            stopping: when set, nothing more is begun.
        """
        try:
            for task_id, report in outcomes:
                if stopping.is_set():
                    return
                self._tell(task_id, report)
            for agent in self._agents:
                if stopping.is_set() or not self._may_take():
                    return
                offers = self._service.pending(agent, min(_OFFERED_TASKS + held, _MOST_ASKED_FOR))
                if offers:
                    self._offered(offers)
        except AdapterError as error:
            self._failed(error)
            return
        self._answered()

    def _tell(self, task_id: str, report: str) -> None:
        try:
            if report == SUCCESS:
                self._service.succeeded(task_id)
            else:
                self._service.failed(task_id, retry_later=report == RETRY)
        except RefusedError as error:
            self._log.warning(
                "report_refused", task_id=task_id, report=report, reason=str(error), remedy="see the results service"
            )
        self._reported(task_id, report)

    def _failed(self, error: AdapterError) -> None:
        self._failures += 1
        self.answers = False
        pause = min(_LONGEST_PAUSE_SECONDS, pause_seconds(self._failures, self._chance))
        self._not_before = time.monotonic() + pause
        if self._failures == 1:
            self._log.error("results_service_away", reason=str(error), remedy="asking again until it answers")
        else:
            self._log.debug("results_service_away", reason=str(error), failures=self._failures)

    def _answered(self) -> None:
        if self._failures:
            self._log.info("results_service_answers_again", failures=self._failures)
        self._failures = 0
        self.answers = True
        self._not_before = 0.0
