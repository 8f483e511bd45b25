"""`exports` and `echo`: results on their way to destinations, and whether a destination is there."""

from typing import Annotated

import typer

from cli.api import DEFAULT_URL, Url, call
from cli.decisions import choice, decide_all, decide_each
from cli.lists import Limit, listed
from cli.output import Json, local_time, print_json, print_table
from protocol.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="List exports of results, show one, and retry or cancel them.")

TaskIds = Annotated[list[str] | None, typer.Argument(metavar="TASK_ID...", help="IDs; none with a choice below.")]
DestinationChoice = Annotated[str | None, typer.Option("--destination", help="Only to this destination.")]
Every = Annotated[bool, typer.Option("--all", help="Every one that this can be done with.")]
_TIMES = ("created", "updated", "nextTry")


@app.command("list")
def list_exports(
    *,
    state: Annotated[
        str | None, typer.Option(help="Only in this state: Pending, InProgress, Succeeded, Failed.")
    ] = None,
    destination: DestinationChoice = None,
    job_id: Annotated[str | None, typer.Option("--job", help="Only of this job's ID.")] = None,
    limit: Limit = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """List export tasks, newest first; FAILED counts files that were tried and are not delivered.

    Example: `dicom-adapter exports list --state Failed`
    """
    query = choice(state=state, destination=destination, jobId=job_id)
    tasks = listed(url, "exports", key="taskId", limit=limit, json=json, query=query)
    if json:
        print_json(tasks)
        return
    print_table(
        ("CREATED", "TASK", "TO", "STATE", "RETRIES", "FILES", "DELIVERED", "FAILED", "LAST ERROR"),
        (
            (
                local_time(task["created"]),
                task["taskId"],
                task["destination"] or task["agent"],
                task["state"],
                task["retries"],
                task["files"],
                task["delivered"],
                task["failed"],
                task["lastError"],
            )
            for task in tasks
        ),
        "no exports",
    )


@app.command()
def show(
    task_id: Annotated[str, typer.Argument(help="The task's ID.")],
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Show all that is known of one task, and its deliveries.

    Example: `dicom-adapter exports show 6c2f…`
    """
    task = call(url, "GET", "exports", task_id)
    if json:
        print_json(task)
        return
    deliveries = task.pop("deliveries")
    print_table(
        ("FIELD", "VALUE"),
        ((name, local_time(value) if name in _TIMES else value) for name, value in task.items()),
        "",
    )
    print()
    print_table(
        ("UPDATED", "TO", "FILE", "SOP INSTANCE UID", "STATE", "TRIES", "LAST ERROR"),
        (
            (
                local_time(each["updated"]),
                each["destination"],
                each["uri"],
                each["sopInstanceUid"],
                each["state"],
                each["tries"],
                each["lastError"],
            )
            for each in deliveries
        ),
        "no deliveries yet",
    )


@app.command()
def retry(
    *,
    task_ids: TaskIds = None,
    destination: DestinationChoice = None,
    every: Every = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Try exports again that failed, and at once those that wait for their next try; only what is missing is sent.

    Example: `dicom-adapter exports retry --destination MYPACS`
    """
    _decide(url, "retry", task_ids or [], destination, every)


@app.command()
def cancel(
    *,
    task_ids: TaskIds = None,
    destination: DestinationChoice = None,
    every: Every = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Give exports up: their files may then be deleted.

    Example: `dicom-adapter exports cancel 6c2f…`
    """
    _decide(url, "cancel", task_ids or [], destination, every)


def echo(
    destination: Annotated[str, typer.Argument(metavar="DEST", help="A destination's name, or dicomweb:URL.")],
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Ask a destination whether it is there: C-ECHO, or a query of a DICOMweb service.

    A destination that does not answer is an error with exit code 1.

    Example: `dicom-adapter echo MYPACS`
    """
    answered = call(url, "POST", "exports", "echo", body={"destination": destination})
    if json:
        print_json(answered)
    else:
        print(f"{answered['destination']}: {answered['answer']} ({answered['seconds']:.3f} s)")


def _decide(url: str, verb: str, task_ids: list[str], destination: str | None, every: bool) -> None:
    chosen = choice(destination=destination)
    if sum((bool(task_ids), bool(chosen), every)) != 1:
        raise UsageError(f"say which exports to {verb}: their IDs, or --destination, or --all")
    if task_ids:
        decide_each(url, verb, "exports", task_ids, "export")
    else:
        decide_all(url, verb, "exports", chosen, "export")
