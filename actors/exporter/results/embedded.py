"""The embedded results service: what runs of the embedded platform left becomes a task for each of its destinations.

A task's ID follows from its run and its destination, so a result may be looked at again. How a task ended needs no
telling: the exporter's own row is what this service has of it.
"""

import os
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import ClassVar

import msgspec

from actors.exporter.destinations import request_outputs
from actors.exporter.results.base import Offer, ResultsService
from protocol import exports
from protocol.clock import NANOSECONDS
from protocol.config.settings import Scu
from protocol.errors import StorageError
from protocol.ledger import PAGE_ROWS, ExportTask, Result, tuples
from protocol.ledger.results import with_files
from protocol.vault import Vault

_NAMESPACE = uuid.UUID("0d1a4c0f-2f5e-4d6e-9a55-5b7ae3a7c1de")
_MARGIN_NS = 3600 * NANOSECONDS  # for commits that take long, and clocks that are set back
_PREAMBLE_BYTES = 128
_OF_DICOM = frozenset({"", ".dcm", ".dicom", ".dic", ".ima"})


class EmbeddedResults(ResultsService):
    """Finds results in the ledger that have no tasks yet.

    Args:
        scu: names the agents.
        vault: opens what requests have sealed.
    """

    origin: ClassVar[str] = "embedded"

    def __init__(self, scu: Scu, vault: Vault) -> None:
        self._scu = scu
        self._vault = vault
        self._lock = threading.Lock()
        self._looked_ns = 0
        self._looked_at: set[str] = set()

    def pending(self, agent: str, size: int) -> Sequence[Offer]:
        """Tasks of results that were registered since the last look; the caller takes them all.

        Raises:
            peewee.PeeweeException: the ledger does not answer; the next look finds them.
        """
        del size  # each result is looked at once
        found = self.look()
        self._looked_at.clear()  # other agents' tasks are still to be had
        return [offer for offer in found if offer.agent == agent]

    def succeeded(self, task_id: str) -> None:
        """Nothing: the task's row says it."""

    def failed(self, task_id: str, *, retry_later: bool) -> None:
        """Nothing: the task's row says it."""

    def look(self) -> list[Offer]:
        """Tasks of all agents, of results that were registered since the last look."""
        with self._lock:
            since, now = self._looked_ns - _MARGIN_NS, time.time_ns()
            found: list[Offer] = []
            some = (Result.created_ns >= since) & with_files()
            recent = {run_id for (run_id,) in tuples(Result.select(Result.run_id).where(some))}
            # What was looked at once gave all its tasks: they follow from the row, which does not change.
            self._looked_at &= recent
            new = sorted(recent - self._looked_at)
            for start in range(0, len(new), PAGE_ROWS):
                query = Result.select(Result.run_id, Result.exports, Result.job_id, Result.payload_id)
                page = list(query.where(Result.run_id.in_(new[start : start + PAGE_ROWS])))
                wanted = {task_id: plan for row in page for task_id, plan in self._plans(row)}
                known_ids = ExportTask.select(ExportTask.task_id).where(ExportTask.task_id.in_(list(wanted)))
                for (known,) in tuples(known_ids) if wanted else ():
                    del wanted[known]
                found += self._offers(wanted)
            self._looked_at.update(new)
            self._looked_ns = now
            return found

    def _plans(self, row: Result) -> Iterator[tuple[str, tuple[str, str, str]]]:
        """A task's ID, and its run, agent and destination, for each destination of a result."""
        for export in row.exports:
            if exports.is_dicomweb(export):
                url = exports.url_of(export)
                yield _task_id(row.run_id, exports.DICOMWEB + url), (row.run_id, self._scu.export.agent, url)
            else:
                yield _task_id(row.run_id, export.casefold()), (row.run_id, self._scu.ae_title, export)
        if self._has_outputs(row):
            yield _task_id(row.run_id, "outputResources"), (row.run_id, self._scu.export.agent, "")

    def _has_outputs(self, row: Result) -> bool:
        try:
            return bool(request_outputs(row.job_id, row.payload_id, self._vault))
        except StorageError:
            return True  # the task says what is wrong with them

    def _offers(self, wanted: dict[str, tuple[str, str, str]]) -> Iterator[Offer]:
        of_run: dict[str, tuple[Result, tuple[str, ...]]] = {}
        for task_id, (run_id, agent, destination) in wanted.items():
            if run_id not in of_run:
                row = Result.get_or_none(Result.run_id == run_id)
                if row is None:
                    continue
                of_run[run_id] = row, _dicom_files(row.directory, row.files)
            row, files = of_run[run_id]
            if files:
                yield Offer(
                    task_id=task_id,
                    job_id=row.job_id,
                    payload_id=row.payload_id,
                    pipeline_id=row.pipeline_id,
                    agent=agent,
                    parameters=msgspec.json.encode(destination).decode() if destination else "",
                    uris=files,
                    destination=destination or "output resources of the request",
                )


def _task_id(run_id: str, destination: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{run_id} {destination}"))


def _dicom_files(directory: str, names: Sequence[str]) -> tuple[str, ...]:
    """What is DICOM, or is named as DICOM is: a report or a picture beside it is no failure of the export."""
    return tuple(
        name
        for name in names
        if os.path.splitext(name)[1].lower() in _OF_DICOM or _is_part_10(os.path.join(directory, name))
    )


def _is_part_10(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            file.seek(_PREAMBLE_BYTES)
            return file.read(4) == b"DICM"
    except OSError:
        return True  # the export says what is wrong with it
