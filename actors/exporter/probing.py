"""Asks destinations whether they are there: for a person, and for tasks that failed since one was not."""

import random
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import peewee as pw

from actors.exporter import destinations
from actors.exporter.destinations import Target
from actors.exporter.lanes import pause_seconds
from actors.exporter.records import Records
from protocol import messages
from protocol.config.settings import Scu
from protocol.errors import AdapterError
from protocol.ledger import ExportTask
from protocol.logs import EventLogger
from protocol.vault import Vault

_THREADS = 2
_FIRST_FAILURES = 3  # the first pause of a destination that has just cost a task all its tries


class Prober:
    """Probes in threads.

    Args:
        records: all tasks.
        vault: opens credentials.
        scu: how things are sent.
        log: of the actor.
        post: has the main loop call something.
    """

    def __init__(
        self,
        records: Records,
        vault: Vault,
        scu: Scu,
        log: EventLogger,
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        self._records = records
        self._vault = vault
        self._scu = scu
        self._log = log
        # Its own threads: a destination that does not answer must not keep tasks from being prepared.
        self._people = ThreadPoolExecutor(_THREADS, thread_name_prefix="echo")
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="probe")
        self._post = post
        self._chance = random.Random()  # noqa: S311 # jitter
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._under_way: set[str] = set()

    def ask(self, written: str) -> "Future[messages.Message]":
        """Ask one destination for a person; the future is sure to have an answer."""
        return self._people.submit(self._answer, written)

    def stop(self) -> None:
        """Wait for the threads."""
        for pool in (self._people, self._threads):
            pool.shutdown(wait=True, cancel_futures=True)

    def look(self, revived: Callable[[str], None]) -> None:
        """Ask the destinations that cost tasks all their tries, each after growing pauses.

        Args:
            revived: told of a destination that answers, in the main loop.

        Raises:
            peewee.PeeweeException: the ledger does not answer.
        """
        failed = self._records.unreachable()
        for gone in self._failures.keys() - failed.keys():
            del self._failures[gone]
        for destination, task_id in failed.items():
            if destination not in self._failures:
                self._failures[destination] = _FIRST_FAILURES
                self._put_off(destination)
            elif destination not in self._under_way and time.monotonic() >= self._not_before[destination]:
                self._under_way.add(destination)
                self._threads.submit(self._probe, destination, task_id, revived)

    def _probe(self, destination: str, task_id: str, revived: Callable[[str], None]) -> None:
        problem = ""
        try:
            row = ExportTask.get_or_none(ExportTask.task_id == task_id)
            targets = destinations.route(row, self._vault).targets if row is not None else ()
            for target in targets:
                self._sender_probe(target)
            problem = "" if targets else "it is not there any more"
        except (AdapterError, pw.PeeweeException) as error:
            problem = str(error)
        except Exception as error:
            self._log.unexpected("probe_broke", destination=destination)
            problem = type(error).__name__
        self._post(lambda: self._probed(destination, problem, revived))

    def _probed(self, destination: str, problem: str, revived: Callable[[str], None]) -> None:
        self._under_way.discard(destination)
        if problem:
            self._failures[destination] = self._failures.get(destination, 0) + 1
            self._put_off(destination)
            self._log.debug("destination_still_down", destination=destination, reason=problem)
        else:
            self._failures.pop(destination, None)
            revived(destination)

    def _put_off(self, destination: str) -> None:
        pause = pause_seconds(self._failures[destination], self._chance)
        self._not_before[destination] = time.monotonic() + pause

    def _answer(self, written: str) -> messages.Message:
        began = time.monotonic()
        try:
            text = self._sender_probe(destinations.find(written, self._vault))
        except AdapterError as error:
            return messages.Refused(reason=str(error))
        except pw.PeeweeException as error:
            return messages.Refused(reason=f"the ledger does not answer now ({type(error).__name__})", transient=True)
        except Exception as error:
            self._log.unexpected("probe_broke", destination=written.rpartition("@")[2])
            return messages.Refused(reason=f"unexpected {type(error).__name__}: see the log")
        return messages.DestinationAnswered(text=text, seconds=round(time.monotonic() - began, 3))

    def _sender_probe(self, target: Target) -> str:
        return target.sender(self._scu).probe()
