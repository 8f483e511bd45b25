"""Named points between two durable steps, at which a test can end or hang the process that gets there.

Nothing happens unless the environment names a directory when the process starts, as tests do:
`DICOM_ADAPTER_KILL_DIRECTORY`. There a point is armed by a file of its name, which says `kill` or `hang`. The first
process that reaches the point renames the file to `NAME.PID` and acts, so that it happens once, in one process.
"""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

KILL_DIRECTORY = "DICOM_ADAPTER_KILL_DIRECTORY"
_ACTIONS = {"kill": signal.SIGKILL, "hang": signal.SIGSTOP}

POINTS: Mapping[str, str] = MappingProxyType(
    {
        "receiver.part-opened": "an object's file is open, and nothing is written",
        "receiver.data-written": "every byte of an object is written, and nothing synced",
        "receiver.data-synced": "an object's data is synced under the name of something in transit",
        "receiver.renamed": "an object has its final name, which may not outlive a power cut",
        "receiver.directory-synced": "an instance is durable, and its sender does not know",
        "receiver.answered": "the sender knows, and no other process",
        "receiver.announced": "an extractor was told",
        "extractor.reading": "an instance is about to be read, and the extractor's note says so",
        "extractor.described": "headers were read, and nobody was told",
        "extractor.descriptions-sent": "the processor was told",
        "processor.instances-placed": "a batch has its groups, in memory only",
        "processor.instances-recorded": "a batch is on record, and memory does not know",
        "processor.asked": "an extractor was asked for what is not on record",
        "processor.jobs-planned": "a group is about to close",
        "processor.group-closed": "a group is closed and its jobs are on record, and nobody was told",
        "processor.jobs-announced": "the submitter was told",
        "processor.shards-sealed": "shards are sealed in the ledger, and memory does not know",
        "processor.history-moved": "some of a reclaimed group's rows are in the history table",
        "submitter.committed": "submissions have their new states, and no step has begun",
        "submitter.created": "the platform has the job, and the ledger does not know",
        "submitter.request-job-created": "the platform has the job of a request that nobody has accepted yet",
        "submitter.metadata-added": "the platform has the metadata, and the ledger does not know",
        "submitter.file-linked": "the platform has some of the payload",
        "submitter.uploaded": "the platform has the payload, and the ledger does not know",
        "submitter.started": "the platform was told to start the job, and the ledger does not know",
        "submitter.rerun-committed": "failed jobs are to run again, and the platform does not know",
        "submitter.rerun-asked": "the platform has failed jobs run again, and nobody looks at what becomes of them",
        "platform.rerun-queued": "failed runs wait for their turn again, and the submitter does not know",
        "platform.rerun-given-up": "failed runs cannot be run again, and their payloads are still there",
        "platform.directories-made": "a run's directories are there, and its row is not",
        "platform.run-created": "a run's row is there, and the submitter does not know",
        "platform.run-queued": "a run is to be started, and the submitter does not know",
        "platform.run-begun": "a run's row says Running, and nothing is prepared",
        "platform.input-made": "a run has its input",
        "platform.shim-started": "a shim lives, and memory does not know",
        "platform.shim-ended": "a shim has ended, and its result was not read",
        "platform.output-synced": "a run's output is durable",
        "platform.cleaned": "a run's input and payload are deleted, and its row says Running",
        "platform.run-ended": "a run's row says how it ended",
        "retriever.offered": "a request is on record, and the platform does not know",
        "retriever.job-created": "the platform has a request's job, and the ledger does not know",
        "retriever.accepted": "a request is accepted, and nobody was told",
        "retriever.withdrawn": "a request is refused, and the platform may have its job",
        "retriever.part-written": "every byte of a file is written, and nothing synced",
        "retriever.named": "a file has its final name, which may not outlive a power cut",
        "retriever.recorded": "some files are on record, and memory does not know",
        "retriever.completed": "a retrieval is over, and the submitter does not know",
        "platform.results-announced": "the exporter was told of a run's results",
        "platform.results-discarded": "a person has given up what runs have left, and all of it is still there",
        "platform.results-freed": "results are deleted that nobody needs, and their rows are still there",
        "exporter.tasks-recorded": "export tasks are on record, and none has begun",
        "exporter.task-begun": "a task's row says InProgress, and nothing is prepared",
        "exporter.deliveries-planned": "a task's deliveries are on record, and none is under way",
        "exporter.answered": "a destination has acknowledged an instance, and the ledger does not know",
        "exporter.deliveries-recorded": "the ledger knows what a destination has",
        "exporter.task-judged": "a task's outcome is on record, and nobody was told",
        "exporter.reported": "the results service knows a task's outcome, and the ledger does not know that it knows",
        "guardian.files-deleted": "a group's files are deleted, and no row says so",
        "guardian.reclaimed": "a group's files are deleted, and the processor's rows are still there",
        "guardian.request-deleted": "what was retrieved for a request is deleted, and the next is to follow",
        "guardian.shard-removed": "an empty shard's directory is deleted, and the ledger has it as sealed",
        "api.committed": "a change is in the ledger, and receivers do not know",
        "api.access-written": "receivers know of a change, and who asked for it does not",
    }
)
"""Every point, with what has been done when it is reached."""

_directory = os.environ.get(KILL_DIRECTORY, "")
ARMED = bool(_directory)
"""Whether a test may have armed a point in this process."""


def reach(name: str) -> None:
    """Say that a point is reached; it costs nothing but the call.

    Args:
        name: one of `POINTS`.
    """
    if _directory:
        _spring(Path(_directory), name)


def _spring(directory: Path, name: str) -> None:
    armed, taken = directory / name, directory / f"{name}.{os.getpid()}"
    try:
        armed.rename(taken)
    except FileNotFoundError:
        return
    os.kill(os.getpid(), _ACTIONS[taken.read_text(encoding="ascii").strip()])
