"""What is told along the pipeline, from the receiver to the submitter and from the platform to the exporter."""

import msgspec

from protocol.clock import Moment
from protocol.messages.base import Message

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


# Embedded platform → exporter.


class ResultsRegistered(Message, frozen=True, kw_only=True):
    """Runs succeeded, and what they left stands in the ledger."""

    run_ids: tuple[str, ...]
