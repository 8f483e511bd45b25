"""What the exporter needs of a results service: the interface that every kind of it implements.

All methods are called in worker threads, and each of them returns or raises within a bounded time. A task may be
offered again and again; the exporter knows it by its ID.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import msgspec


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A task that a results service has for an agent. Fields as in `protocol.ledger.ExportTask`."""

    task_id: str
    job_id: str
    payload_id: str
    pipeline_id: str
    agent: str
    parameters: str
    uris: tuple[str, ...]
    retries: int = 0
    destination: str = ""


class ResultsService(ABC):
    """A results service.

    Every method raises `UnavailableError` when the service cannot be reached or cannot do it now, and `RefusedError`
    when it never will.
    """

    origin: ClassVar[str]
    """What stands in the rows of its tasks."""

    @abstractmethod
    def pending(self, agent: str, size: int) -> Sequence[Offer]:
        """At most so many tasks that wait for an agent."""

    @abstractmethod
    def succeeded(self, task_id: str) -> None:
        """Tell that a task's files are where they belong. It may be told again."""

    @abstractmethod
    def failed(self, task_id: str, *, retry_later: bool) -> None:
        """Tell that a task failed, and whether it is to be offered again. It may be told again."""

    def close(self) -> None:  # noqa: B027 - not every kind holds something
        """Let go of what is held."""
