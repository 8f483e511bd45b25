"""What processes say to each other, in pipeline order: facts in the past tense, commands in the imperative.

Every message may be lost or come twice; what it tells stands on disk or in the ledger already. New fields get
defaults; types never change.
"""

from typing import Any

import msgspec

from protocol.clock import Moment
from protocol.inference import Order
from protocol.states import RunState


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """Anything that travels between two processes."""


# Receiver → extractor.


class StoredInstance(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An instance on disk. What it is stands in its file meta group.

    Args:
        identifier: `SHARD/STEM`, see `protocol.spool`.
        stored: when it became durable.
    """

    identifier: str
    stored: Moment


class InstancesStored(Message, frozen=True, kw_only=True):
    """Instances are on disk and acknowledged."""

    instances: tuple[StoredInstance, ...]


class DescribeInstances(Message, frozen=True, kw_only=True):
    """From the processor's sweep: describe these, whose `InstancesStored` or description was lost.

    Args:
        lenient: a person released them from quarantine: fill what is missing instead of giving up.
    """

    instances: tuple[StoredInstance, ...]
    lenient: bool = False


# Extractor → processor.


class DescribedInstance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What is known of an instance after its header was read.

    Args:
        identifier: `SHARD/STEM`.
        stored: when it became durable.
        size: bytes of the file.
        dataset_offset: bytes before the dataset, that is preamble and file meta group.
        called_ae_title: 0002,0018; calling_ae_title: 0002,0017; host: from 0002,0026.
        sop_class_uid, sop_instance_uid, transfer_syntax_uid: of the file meta group.
        study_uid, series_uid, patient_id: of the dataset; the patient ID may be empty.
        attributes: the elements asked for, GGGGEEEE to text; several values joined by backslash; "" when the
            element is absent or empty.
        problem: why it cannot be used, without patient data; "" when it can.
    """

    identifier: str
    stored: Moment
    size: int = 0
    dataset_offset: int = 0
    called_ae_title: str = ""
    calling_ae_title: str = ""
    host: str = ""
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    transfer_syntax_uid: str = ""
    study_uid: str = ""
    series_uid: str = ""
    patient_id: str = ""
    attributes: dict[str, str] = {}
    problem: str = ""


class InstancesDescribed(Message, frozen=True, kw_only=True):
    """Instances were read, or could not be (`problem`)."""

    instances: tuple[DescribedInstance, ...]
    lenient: bool = False


# Processor → submitter.


class JobsCreated(Message, frozen=True, kw_only=True):
    """Jobs stand in the ledger and wait to be submitted."""

    job_ids: tuple[str, ...]


# Retriever → submitter.


class PayloadsRetrieved(Message, frozen=True, kw_only=True):
    """The retrieval for these jobs of inference requests is over."""

    job_ids: tuple[str, ...]


class CreateJob(Message, frozen=True, kw_only=True):
    """Create an inference request's job on the platform, or find it there; answered `JobCreated`.

    Args:
        priority: one of `protocol.priority.PRIORITIES`.
        source: as in the job's metadata.
        requested_ns: wall time of the request, before which the job cannot have been created.
        again: whether it may have been asked before, so that the job is looked for first.
    """

    job_id: str
    name: str
    pipeline_id: str
    priority: str
    source: str
    requested_ns: int
    again: bool = False


class JobCreated(Message, frozen=True, kw_only=True):
    """Answer: the platform's own identifiers."""

    platform_job_id: str
    payload_id: str


class CancelJob(Message, frozen=True, kw_only=True):
    """Let the platform give a job up that was never accepted; answered when it has. Fields as in `CreateJob`."""

    job_id: str
    pipeline_id: str
    requested_ns: int


# Submitter → embedded platform: commands, each repeatable under the job's own UUID.


class CreateRun(Message, frozen=True, kw_only=True):
    """Make a job on the embedded platform, or answer with the one that has this UUID already.

    Args:
        priority: one of `protocol.priority.PRIORITIES`.
    """

    job_id: str
    name: str
    pipeline_id: str
    priority: str
    metadata: dict[str, str]


class FindRun(Message, frozen=True, kw_only=True):
    """Look a job up by its UUID: answered `RunCreated`, or `Done` when the platform has none."""

    job_id: str


class RunCreated(Message, frozen=True, kw_only=True):
    """Answer: the platform's own identifiers, and how far the job is there.

    Args:
        payload_directory: where the payload's files belong.
        metadata: what the platform has of it.
        state: see `protocol.states.RunState`.
    """

    run_id: str
    payload_id: str
    payload_directory: str
    metadata: dict[str, str] = {}
    state: RunState = RunState.CREATED


class AddRunMetadata(Message, frozen=True, kw_only=True):
    """Add metadata to a job that was created."""

    run_id: str
    metadata: dict[str, str]


class StartRun(Message, frozen=True, kw_only=True):
    """The payload is complete: queue the job's pipeline."""

    run_id: str


class CancelRun(Message, frozen=True, kw_only=True):
    """End a run, or take it from the queue."""

    run_id: str


class RunAgain(Message, frozen=True, kw_only=True):
    """Queue jobs whose run failed once more. May be repeated.

    Args:
        decided_ns: wall time at which a person decided so; what was queued by the same decision stays as it is.
    """

    job_ids: tuple[str, ...]
    decided_ns: int


# Embedded platform → exporter.


class ResultsRegistered(Message, frozen=True, kw_only=True):
    """Runs succeeded, and what they left stands in the ledger."""

    run_ids: tuple[str, ...]


# API → owners: commands.


class AeTitlesChanged(Message, frozen=True, kw_only=True):
    """AE titles, or their settings, changed in the ledger."""


class PipelinesChanged(Message, frozen=True, kw_only=True):
    """Pipelines changed in the ledger."""


class ReleaseInstances(Message, frozen=True, kw_only=True):
    """Take instances out of quarantine and process them as well as can be."""

    identifiers: tuple[str, ...]


class DiscardInstances(Message, frozen=True, kw_only=True):
    """Give quarantined instances up; a person decided."""

    identifiers: tuple[str, ...]


class AcceptRequest(Message, frozen=True, kw_only=True):
    """To the retriever: take an inference request over, once its job is on the platform.

    Args:
        order: the request.
        until_ns: wall time after which the requester will have been told that it was not.
    """

    order: Order
    until_ns: int


class RequestAccepted(Message, frozen=True, kw_only=True):
    """Answer: the request is accepted, now or before; the platform's own identifiers."""

    job_id: str
    payload_id: str


class RequestDiffers(Message, frozen=True, kw_only=True):
    """Answer: its transaction ID belongs to another request."""


class RetryJobs(Message, frozen=True, kw_only=True):
    """Submit faulted jobs again. An empty field does not restrict.

    Args:
        since_ns, until_ns: wall time of the job's creation, 0 for no bound.
        failed: instead those that were submitted and whose run failed on the platform, which runs them again.
    """

    job_ids: tuple[str, ...] = ()
    ae_title: str = ""
    pipeline_id: str = ""
    since_ns: int = 0
    until_ns: int = 0
    failed: bool = False


class DiscardJobs(Message, frozen=True, kw_only=True):
    """Give faulted jobs up; a person decided. Fields as in `RetryJobs`."""

    job_ids: tuple[str, ...] = ()
    ae_title: str = ""
    pipeline_id: str = ""
    since_ns: int = 0
    until_ns: int = 0


class RegisterTask(Message, frozen=True, kw_only=True):
    """Make an export task, or find the one that has this ID already. Fields as in `protocol.ledger.ExportTask`."""

    task_id: str
    job_id: str
    payload_id: str
    pipeline_id: str
    agent: str
    parameters: str
    uris: tuple[str, ...]


class TakeTasks(Message, frozen=True, kw_only=True):
    """Give pending tasks to an agent that is no part of this system; answered `TasksTaken`."""

    agent: str
    size: int


class TasksTaken(Message, frozen=True, kw_only=True):
    """Answer: these are the asking agent's for a while."""

    task_ids: tuple[str, ...]


class FinishTask(Message, frozen=True, kw_only=True):
    """From an agent that is no part of this system: how a task ended."""

    task_id: str
    succeeded: bool
    retry_later: bool = False


class RetryTasks(Message, frozen=True, kw_only=True):
    """Try export tasks again that failed, or wait for their next try. An empty field does not restrict."""

    task_ids: tuple[str, ...] = ()
    destination: str = ""


class CancelTasks(Message, frozen=True, kw_only=True):
    """Give export tasks up that are not over, or failed; a person decided. Fields as in `RetryTasks`."""

    task_ids: tuple[str, ...] = ()
    destination: str = ""


class ProbeDestination(Message, frozen=True, kw_only=True):
    """Ask a destination whether it is there; answered `DestinationAnswered`, or `Refused` with what was wrong.

    Args:
        destination: its name, or the URL of a DICOMweb service.
    """

    destination: str


class DestinationAnswered(Message, frozen=True, kw_only=True):
    """Answer: what it said, for people."""

    text: str
    seconds: float


# Answers.


class Done(Message, frozen=True, kw_only=True):
    """A command was carried out.

    Args:
        affected: how many rows it changed.
    """

    affected: int = 0


class Refused(Message, frozen=True, kw_only=True):
    """A command was understood and will not be carried out.

    Args:
        reason: a sentence for people.
        transient: the same command may succeed later.
    """

    reason: str
    transient: bool = False


# Supervisor ↔ actor, over the socket pair that the actor was born with.


class Ready(Message, frozen=True, kw_only=True):
    """The actor has replayed its unfinished work and takes part."""


class Heartbeat(Message, frozen=True, kw_only=True):
    """The actor's main loop turned.

    Args:
        detail: what it is busy with, for people.
        quiet_seconds: how long it may be silent from now on, when that is longer than usual.
    """

    detail: str = ""
    quiet_seconds: float = 0.0


class Draining(Message, frozen=True, kw_only=True):
    """The actor takes nothing new and ends when what it has is done."""


class Drain(Message, frozen=True, kw_only=True):
    """Finish what you have within so many seconds, then exit.

    Args:
        seconds: how long it may take.
        gateway_stops: the whole gateway ends, not this actor alone.
    """

    seconds: float
    gateway_stops: bool = False


class SettingsChanged(Message, frozen=True, kw_only=True):
    """The settings file in the runtime directory was replaced."""


# Command line → supervisor, over its control socket.


class GetStatus(Message, frozen=True, kw_only=True):
    """Ask for `Status`."""


class RestartActors(Message, frozen=True, kw_only=True):
    """Replace the actors of a kind, or one by name, and answer when the successors are ready."""

    target: str


class ActorStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One actor, as `status --json` shows it."""

    name: str
    kind: str
    pid: int | None
    state: str
    restarts: int
    uptime_seconds: float
    last_heartbeat_seconds: float
    detail: str = ""


class StorageStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The disk as the guardian sees it."""

    state: str
    free_bytes: int
    reserved_bytes: int


class Status(Message, frozen=True, kw_only=True):
    """Answer to `GetStatus`."""

    actors: tuple[ActorStatus, ...]
    active_associations: int
    storage: StorageStatus
    supervisor_pid: int = 0


ToExtractor = InstancesStored | DescribeInstances
ToProcessor = InstancesDescribed
ProcessorCommand = AeTitlesChanged | ReleaseInstances | DiscardInstances
ToSubmitter = JobsCreated | PayloadsRetrieved
SubmitterCommand = RetryJobs | DiscardJobs | CreateJob | CancelJob
RetrieverCommand = AcceptRequest
PlatformCommand = CreateRun | FindRun | AddRunMetadata | StartRun | CancelRun | RunAgain | PipelinesChanged
ToExporter = ResultsRegistered
ExporterCommand = RegisterTask | TakeTasks | FinishTask | RetryTasks | CancelTasks | ProbeDestination
Answer = Done | Refused | RunCreated | JobCreated | RequestAccepted | RequestDiffers | TasksTaken | DestinationAnswered
FromActor = Ready | Heartbeat | Draining
ToActor = Drain | SettingsChanged
ControlRequest = GetStatus | RestartActors
ControlAnswer = Status | Done | Refused


_encoder = msgspec.msgpack.Encoder()


def encode(message: Message) -> bytes:
    """A message as MessagePack."""
    return _encoder.encode(message)


def decoder(union: Any) -> "msgspec.msgpack.Decoder[Any]":
    """A decoder for one of the unions above; build it once."""
    return msgspec.msgpack.Decoder(union)
