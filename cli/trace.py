"""`trace`: the journey of one study, from its associations to the end of its pipelines' runs."""

from collections import defaultdict
from datetime import datetime
from typing import Annotated, Any

import typer

from cli.api import DEFAULT_URL, Url, call
from cli.output import Json, print_json, print_table, size

_SENTENCES = {
    "FirstInstanceStored": "first instance of {callingAeTitle} at {host} stored for {calledAeTitle} ({associationId})",
    "LastInstanceStored": "last of {instances} instances stored ({associationId})",
    "InstancesQuarantined": "{instances} instances quarantined: {reason}",
    "GroupOpened": "group {groupId} of {aeTitle} opened, revision {revision}",
    "GroupClosed": "group {groupId} of {aeTitle} closed with {instances} instances",
    "JobCreated": "job {jobName} created: {instances} instances for pipeline {pipelineId}",
    "JobAdvanced": "job {jobName}: {state}",
    "RequestAccepted": "inference request {transactionId}: accepted",
    "FirstInstanceRetrieved": "inference request {transactionId}: first instance retrieved",
    "LastInstanceRetrieved": "inference request {transactionId}: last of {instances} instances retrieved",
    "RunQueuedAgain": "job {jobName}: pipeline to be run again",
    "RunStarted": "job {jobName}: pipeline started",
    "ExportTaskCreated": "job {jobName}: export of {files} files to {destination} ({agent})",
    "DeliveriesMade": "job {jobName}: {delivered} files delivered to {destination}",
    "ExportTaskEnded": "job {jobName}: export to {destination}, {state}; {delivered} delivered, {failed} failed",
    "RunEnded": "job {jobName}: pipeline ended, {state}, exit code {exitCode}",
}


def trace(
    study_uid: Annotated[str, typer.Argument(metavar="STUDY_UID", help="Study Instance UID.")],
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Show a study's journey with times: associations, instances, groups, jobs, uploads, runs, and their ends.

    An unknown study is an error with exit code 1.

    Example: `dicom-adapter trace 1.2.826.0.1.3680043.8.498.1`
    """
    journey = call(url, "GET", "trace", study_uid)
    if json:
        print_json(journey)
        return
    states = ", ".join(f"{count} {state}" for state, count in journey["states"].items())
    print(f"study {study_uid}: {journey['instances']} instances, {size(journey['bytes'])}; {states}\n")
    events = journey["events"]
    start = datetime.fromisoformat(events[0]["time"]) if events else None
    print_table(
        ("TIME", "AFTER", "WHAT"),
        ((*_when(event["time"], start), _sentence(event)) for event in events),
        "nothing has happened to it yet",
    )
    for task in journey["exports"]:
        last = f"; {task['lastError']}" if task["lastError"] else ""
        told = f"{task['state']}, {task['delivered']} of {task['files']} files delivered"
        print(f"\nexport to {task['destination'] or task['agent']} ({task['taskId']}): {told}{last}")
    for job in journey["jobs"]:
        last = f"; {job['lastError']}" if job["lastError"] else ""
        print(f"\njob {job['jobName']} ({job['jobId']}): {job['state']}, {job['platformState'] or 'not started'}{last}")


def _when(time: str, start: datetime | None) -> tuple[str, str]:
    """A moment on this machine's clock, and how many seconds after the first one it was."""
    moment = datetime.fromisoformat(time)
    local = moment.astimezone()
    shown = f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d} {local:%z}"
    return shown, f"{(moment - start).total_seconds():.3f} s" if start else ""


def _sentence(event: dict[str, Any]) -> str:
    fields = event["fields"]
    template = _SENTENCES.get(event["event"])
    if template is None:
        # A newer gateway may tell of more than this command knows.
        return " ".join([event["event"], *(f"{name}={value}" for name, value in fields.items())])
    return template.format_map(defaultdict(lambda: "?", fields))
