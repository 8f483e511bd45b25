"""The tables, each with its owner: the one process that writes it; any may read."""

import peewee as pw

from protocol.ledger.rows import JsonField, Row
from protocol.states import (
    DeliveryState,
    GroupState,
    JobState,
    RequestState,
    RunState,
    TaskState,
)


class SchemaVersion(Row):
    """Which version of the tables this database has; one row."""

    version = pw.IntegerField()


# Owner: api.


class AeTitle(Row):
    """A Clara AE title, found by `name`. A deleted one stays until nothing of it is under way."""

    name = pw.TextField(primary_key=True)
    ae_title = pw.TextField(index=True)
    overwrite_same_instance = pw.BooleanField(default=False)
    ignored_sop_classes = JsonField(default=list)
    processor = pw.TextField()
    processor_settings = JsonField(default=dict)
    deleted_ns = pw.BigIntegerField(null=True)
    created_ns = pw.BigIntegerField()
    updated_ns = pw.BigIntegerField()


class Source(Row):
    """Who may send."""

    ae_title = pw.TextField(primary_key=True)
    host_ip = pw.TextField()
    created_ns = pw.BigIntegerField()


class Destination(Row):
    """Where results may go; names are compared without case."""

    name = pw.TextField(primary_key=True)
    ae_title = pw.TextField()
    host_ip = pw.TextField()
    port = pw.IntegerField()
    created_ns = pw.BigIntegerField()


class Pipeline(Row):
    """A command that the embedded platform runs.

    `command` is a list of arguments; `exports` a list of destination names and `dicomweb:URL`; `user` is the
    account that runs it, "" for the service's own.
    """

    pipeline_id = pw.TextField(primary_key=True)
    name = pw.TextField(unique=True)
    command = JsonField()
    exports = JsonField(default=list)
    user = pw.TextField(default="")
    timeout_seconds = pw.IntegerField(default=3600)
    created_ns = pw.BigIntegerField()


# Owner: processor.


class Group(Row):
    """Instances under one AE title that become jobs together; `key_value` is what the grouping tag said.

    A revision counts from 0; what comes after a close makes the next. The last moment is when the latest
    instance was stored, on both clocks.
    """

    group_id = pw.BigAutoField()
    ae_title = pw.TextField()
    processor = pw.TextField()
    key_value = pw.TextField()
    revision = pw.IntegerField()
    state = pw.TextField(default=GroupState.OPEN, index=True)
    instances = pw.IntegerField(default=0)
    last_wall_ns = pw.BigIntegerField()
    last_boot_ns = pw.BigIntegerField()
    boot = pw.TextField()
    opened_ns = pw.BigIntegerField()
    closed_ns = pw.BigIntegerField(null=True)

    class Meta:
        table_name = "instance_group"  # GROUP is a word of SQL
        indexes = ((("ae_title", "key_value", "revision"), True),)


class _InstanceColumns(Row):
    """What is on record of an instance: an index over the spool that can be rebuilt from it."""

    identifier = pw.TextField(primary_key=True)
    group_id = pw.BigIntegerField(null=True)
    state = pw.TextField()
    reason = pw.TextField(default="")
    called_ae_title = pw.TextField()
    calling_ae_title = pw.TextField()
    host = pw.TextField()
    sop_class_uid = pw.TextField()
    sop_instance_uid = pw.TextField()
    transfer_syntax_uid = pw.TextField()
    study_uid = pw.TextField(index=True)
    series_uid = pw.TextField()
    patient_id = pw.TextField()
    attributes = JsonField(default=dict)
    size = pw.BigIntegerField()
    dataset_offset = pw.IntegerField()
    stored_wall_ns = pw.BigIntegerField()
    stored_boot_ns = pw.BigIntegerField()
    boot = pw.TextField()


class Instance(_InstanceColumns):
    """Instances whose file is in the spool."""

    class Meta:
        indexes = ((("group_id", "sop_instance_uid"), False),)  # is this SOP Instance in the group already?


class InstanceHistory(_InstanceColumns):
    """Instances whose file was reclaimed, after every job of theirs had it, or was discarded."""

    reclaimed_ns = pw.BigIntegerField()

    class Meta:
        indexes = ((("group_id",), False),)


class SealedShard(Row):
    """A shard that is finished and all on record: the scan at start leaves it out."""

    shard = pw.TextField(primary_key=True)
    sealed_ns = pw.BigIntegerField()


class Job(Row):
    """The decision that a group, or what an inference request names, goes to a pipeline. `source` as in its metadata.

    A request's job has no group and no AE title; its row is the retriever's.
    """

    job_id = pw.TextField(primary_key=True)
    group_id = pw.BigIntegerField(null=True, index=True)
    ae_title = pw.TextField()
    name = pw.TextField(unique=True)
    pipeline_id = pw.TextField()
    priority = pw.TextField()
    source = pw.TextField()
    instances = pw.IntegerField()
    created_ns = pw.BigIntegerField(index=True)


# Owner: submitter.


class Submission(Row):
    """A job's way to the platform, taken over from `Job` under the same key.

    `tries` counts failures of the step under way; `steps` is a list of [state, wall time in ns]; `uploaded` is
    how many of the payload's files, in their order, are known to be on the platform.
    """

    job_id = pw.TextField(primary_key=True)
    state = pw.TextField(default=JobState.QUEUED, index=True)
    tries = pw.IntegerField(default=0)
    next_try_ns = pw.BigIntegerField(default=0)
    last_error = pw.TextField(default="")
    unreachable = pw.BooleanField(default=False)
    platform_job_id = pw.TextField(default="")
    payload_id = pw.TextField(default="")
    payload_directory = pw.TextField(default="")
    platform_state = pw.TextField(default="", index=True)
    uploaded = pw.IntegerField(default=0)
    steps = JsonField(default=list)
    created_ns = pw.BigIntegerField()
    updated_ns = pw.BigIntegerField()


# Owner: platform.


class Run(Row):
    """A job on the embedded platform. `priority` is lower, normal, higher or immediate.

    `kept_bytes` is what stays in the spool of a run that is over: its output and its log. `exports` are its pipeline's
    when the run was made, in case that the pipeline is deleted before the run ends. `keeps_input`: it failed, and its
    payload is kept, so that it can be run again; and so on until it is over. `queued_ns` is when a person had it
    run again.
    """

    run_id = pw.TextField(primary_key=True)
    job_id = pw.TextField(unique=True)
    payload_id = pw.TextField(unique=True)
    name = pw.TextField()
    pipeline_id = pw.TextField()
    priority = pw.TextField()
    metadata = JsonField(default=dict)
    exports = JsonField(default=list)
    state = pw.TextField(default=RunState.CREATED, index=True)
    tries = pw.IntegerField(default=0)
    exit_code = pw.IntegerField(null=True)
    error = pw.TextField(default="")
    last_output = pw.TextField(default="")
    kept_bytes = pw.BigIntegerField(default=0)
    keeps_input = pw.BooleanField(default=False, index=True)
    queued_ns = pw.BigIntegerField(default=0)
    created_ns = pw.BigIntegerField()
    started_ns = pw.BigIntegerField(null=True)
    ended_ns = pw.BigIntegerField(null=True)


class Result(Row):
    """What a run that succeeded left for its pipeline's destinations; committed with the run's end.

    `directory` is absolute; `files` are names below it; `exports` are the pipeline's, as they were then (see
    `protocol.exports`). The row is deleted with the files, when every destination has them, or when a person has
    `discarded` it and no export waits for it.
    """

    run_id = pw.TextField(primary_key=True)
    job_id = pw.TextField(index=True)
    payload_id = pw.TextField(index=True)
    pipeline_id = pw.TextField()
    directory = pw.TextField()
    files = JsonField()
    exports = JsonField()
    discarded = pw.BooleanField(default=False)
    created_ns = pw.BigIntegerField(index=True)


# Owner: exporter.


class ExportTask(Row):
    """Files of a job's payload on their way to destinations.

    `task_id` is a UUID; `origin` is the results service that it came from, `embedded` or `clara`; `agent`,
    `parameters` and `uris` are as in the Results Service; `retries` counts failures that were reported with a retry.
    `transport` is scu or dicomweb, or empty when an agent that is no part of this system takes it. `destination` is for
    people, and without passwords; `files` counts `uris`. `report` is what that service has still
    to be told (success, failure, retry, or nothing). `unreachable`: it failed since its destination did not answer.
    """

    task_id = pw.TextField(primary_key=True)
    origin = pw.TextField()
    job_id = pw.TextField(index=True)
    payload_id = pw.TextField(index=True)
    pipeline_id = pw.TextField()
    agent = pw.TextField()
    transport = pw.TextField(default="")
    parameters = pw.TextField()
    destination = pw.TextField(default="")
    uris = JsonField()
    files = pw.IntegerField()
    state = pw.TextField(default=TaskState.PENDING, index=True)
    report = pw.TextField(default="", index=True)
    unreachable = pw.BooleanField(default=False)
    retries = pw.IntegerField(default=0)
    next_try_ns = pw.BigIntegerField(default=0)
    last_error = pw.TextField(default="")
    created_ns = pw.BigIntegerField(index=True)
    updated_ns = pw.BigIntegerField()


class Delivery(Row):
    """One file of a task on its way to one destination. `tries` counts attempts; `last_error` is for people."""

    delivery_id = pw.BigAutoField()
    task_id = pw.TextField()
    destination = pw.TextField()
    uri = pw.TextField()
    sop_instance_uid = pw.TextField(default="")
    state = pw.TextField(default=DeliveryState.PENDING, index=True)
    tries = pw.IntegerField(default=0)
    last_error = pw.TextField(default="")
    updated_ns = pw.BigIntegerField()

    class Meta:
        indexes = ((("task_id", "destination", "uri"), True),)


# Owner: retriever.


class InferenceRequest(Row):
    """A request to pull data and run an algorithm on it.

    `job_id` is our UUID, `job_name` the job's; `digest` tells whether a request that comes again is the same;
    `request` is a `protocol.inference.Order` as JSON and `outputs` its output resources (a JSON list of uri, authType,
    authId), both sealed by `protocol.vault`. `tries` counts rounds that left something missing; `next_try_ns` is
    the next round's time, and before the request is accepted that until which it must be. `deaths` counts processes in
    a row that ended during its rounds, before it had brought a file.
    """

    transaction_id = pw.TextField(primary_key=True)
    job_id = pw.TextField(unique=True)
    job_name = pw.TextField(unique=True)
    pipeline_id = pw.TextField()
    priority = pw.TextField()
    platform_job_id = pw.TextField(default="", index=True)
    payload_id = pw.TextField(default="", index=True)
    digest = pw.TextField()
    request = pw.TextField()
    outputs = pw.TextField()
    state = pw.TextField(default=RequestState.QUEUED, index=True)
    status = pw.TextField(default="Unknown")
    message = pw.TextField(default="")
    tries = pw.IntegerField(default=0)
    deaths = pw.IntegerField(default=0)
    next_try_ns = pw.BigIntegerField(default=0)
    created_ns = pw.BigIntegerField(index=True)
    updated_ns = pw.BigIntegerField()


class Retrieval(Row):
    """A file of a request's payload that is on disk: an instance or a FHIR resource.

    `path` is below the request's directory and tells what it is; `name` is the file's name in the payload;
    `attributes` as an instance's; `source` counts the request's sources from 0.
    """

    retrieval_id = pw.BigAutoField()
    job_id = pw.TextField()
    path = pw.TextField()
    name = pw.TextField()
    size = pw.BigIntegerField()
    study_uid = pw.TextField(default="", index=True)
    series_uid = pw.TextField(default="")
    sop_instance_uid = pw.TextField(default="")
    attributes = JsonField(default=dict)
    source = pw.IntegerField()
    retrieved_ns = pw.BigIntegerField()

    class Meta:
        indexes = ((("job_id", "path"), True),)


class Withdrawal(Row):
    """A job that may be on the platform and must not be: its request was refused. Deleted when the platform knows."""

    job_id = pw.TextField(primary_key=True)
    pipeline_id = pw.TextField()
    requested_ns = pw.BigIntegerField()
    created_ns = pw.BigIntegerField()


# Owner: guardian.


class Reclaim(Row):
    """A group whose files the guardian deleted; the processor then moves its rows to history."""

    group_id = pw.BigIntegerField(primary_key=True)
    files = pw.IntegerField()
    bytes = pw.BigIntegerField()
    reclaimed_ns = pw.BigIntegerField()


TABLES: tuple[type[Row], ...] = (
    SchemaVersion,
    AeTitle,
    Source,
    Destination,
    Pipeline,
    Group,
    Instance,
    InstanceHistory,
    SealedShard,
    Job,
    Submission,
    Run,
    Result,
    ExportTask,
    Delivery,
    InferenceRequest,
    Retrieval,
    Withdrawal,
    Reclaim,
)
