"""Asks the extractors for what is on disk and not on record: in a window, and each instance ever more seldom.

A lost message costs some seconds that way, a lost ledger as long as describing takes, and extractors that stand still
are not buried under questions.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable

from protocol import killpoints
from protocol.clock import Moment, now
from protocol.messages import DescribeInstances, Message, StoredInstance

MESSAGE = 200
WINDOW = 2000
INTERVAL_SECONDS = 5.0
_LONGEST_INTERVAL_SECONDS = 60.0
_ALONE_FROM = 3
GIVE_UP_AFTER = 8


@dataclasses.dataclass(slots=True)
class _Question:
    stored: Moment
    times: int = 0
    next_at: float = 0.0
    answers_before: int = 0


class Asker:
    """Keeps what is wanted, and sends no more than a window of it.

    Args:
        send: sends a message to an extractor; False when none takes it.
        clock: a monotonic clock in seconds.
    """

    def __init__(self, send: Callable[[Message], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self._questions: dict[str, _Question] = {}
        self._open: set[str] = set()
        self._released: dict[str, float] = {}
        self._answers = 0

    def want(self, missing: Iterable[StoredInstance]) -> None:
        """Have instances described; those that are asked for already stay as they are."""
        for stored in missing:
            self._questions.setdefault(stored.identifier, _Question(stored.stored))

    def knows(self, identifier: str) -> bool:
        """Whether an instance is asked for."""
        return identifier in self._questions

    def answered(self, identifiers: Iterable[str]) -> None:
        """Instances are on record."""
        for identifier in identifiers:
            self._answers += 1
            if self._questions.pop(identifier, None) is not None:
                self._open.discard(identifier)
            self._released.pop(identifier, None)

    def retain(self, missing: frozenset[str]) -> None:
        """Forget what is not missing any more."""
        for identifier in [each for each in self._questions if each not in missing]:
            del self._questions[identifier]
            self._open.discard(identifier)

    def release(self, identifiers: Iterable[str]) -> None:
        """A person released instances: they are described as well as can be, and asked for until they are."""
        self._released.update(dict.fromkeys(identifiers, 0.0))
        self.ask()

    def ask(self) -> None:
        """Send what is due and fits into the window."""
        clock = self._clock()
        self._open = {identifier for identifier in self._open if self._questions[identifier].next_at > clock}
        room = WINDOW - len(self._open)
        together: list[str] = []
        for identifier, question in self._questions.items():
            if room <= 0:
                break
            if question.next_at > clock:
                continue
            room -= 1
            if question.times >= _ALONE_FROM:
                # One of those that were asked together may end the process that reads it.
                self._send_questions([identifier], clock)
            else:
                together.append(identifier)
        for start in range(0, len(together), MESSAGE):
            self._send_questions(together[start : start + MESSAGE], clock)
        self._ask_for_released(clock)

    def refill(self) -> None:
        """Ask for more when most of the window was answered."""
        if len(self._open) < WINDOW // 2 and len(self._questions) > len(self._open):
            self.ask()

    def hopeless(self) -> list[StoredInstance]:
        """Instances that were asked for again and again while others were answered."""
        return [
            StoredInstance(identifier, question.stored)
            for identifier, question in self._questions.items()
            if question.times >= GIVE_UP_AFTER and question.next_at <= self._clock()
        ]

    def _send_questions(self, identifiers: list[str], clock: float) -> None:
        instances = tuple(StoredInstance(each, self._questions[each].stored) for each in identifiers)
        if not self._send(DescribeInstances(instances=instances)):
            return  # no extractor takes it now, so it stays due
        killpoints.reach("processor.asked")
        for identifier in identifiers:
            question = self._questions[identifier]
            if question.times == 0 or self._answers > question.answers_before:
                question.times += 1  # else the extractors stand still, which is not this instance's fault
            question.answers_before = self._answers
            question.next_at = clock + min(_LONGEST_INTERVAL_SECONDS, INTERVAL_SECONDS * 2 ** (question.times - 1))
            self._open.add(identifier)

    def _ask_for_released(self, clock: float) -> None:
        due = [identifier for identifier, next_at in self._released.items() if next_at <= clock][:WINDOW]
        for start in range(0, len(due), MESSAGE):
            # A person's decision counts as arrival: the group waits from now on.
            some = due[start : start + MESSAGE]
            instances = tuple(StoredInstance(identifier, now()) for identifier in some)
            if self._send(DescribeInstances(instances=instances, lenient=True)):
                self._released.update(dict.fromkeys(some, clock + INTERVAL_SECONDS))
