"""`jobs`: what was handed to a platform, how far it got, and what a person decides about what went wrong."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

import typer

from cli.api import DEFAULT_URL, Url, call
from cli.decisions import choice, decide_all, decide_each
from cli.lists import Limit, listed
from cli.output import Json, local_time, print_json, print_table, printable, utc_time
from protocol.errors import UsageError

app = typer.Typer(
    no_args_is_help=True,
    help="List jobs, show one, retry those that went wrong, and discard what is not wanted any more.",
)

JobIds = Annotated[list[str] | None, typer.Argument(metavar="JOB_ID...", help="IDs; none with a choice below.")]
AeTitleChoice = Annotated[str | None, typer.Option("-a", "--aetitle", "--ae-title", help="Only of this AE title.")]
PipelineChoice = Annotated[str | None, typer.Option("--pipeline", help="Only of this pipeline's ID.")]
Since = Annotated[str | None, typer.Option(help="Only created at or after this time (this machine's clock).")]
Until = Annotated[str | None, typer.Option(help="Only created at or before this time.")]
_TIMES = ("created", "updated", "started", "ended")
Every = Annotated[bool, typer.Option("--all", help="Every faulted job; for discard, with --platform, all of those.")]


@app.command("list")
def list_jobs(
    *,
    state: Annotated[str | None, typer.Option(help="Only in this state, such as Queued, Completed, Faulted.")] = None,
    platform: Annotated[
        str | None, typer.Option(help="Only those of which the platform says this, such as Running, Succeeded, Failed.")
    ] = None,
    ae_title: AeTitleChoice = None,
    pipeline: PipelineChoice = None,
    limit: Limit = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """List jobs, newest first.

    STATE is of the submission (Completed: started on the platform), PLATFORM what became of it there.

    Example: `dicom-adapter jobs list --state Faulted`
    """
    query = choice(state=state, platformState=platform, aeTitle=ae_title, pipelineId=pipeline)
    jobs = listed(url, "jobs", key="jobId", limit=limit, json=json, query=query)
    if json:
        print_json(jobs)
        return
    print_table(
        ("CREATED", "JOB", "NAME", "STATE", "PLATFORM", "INSTANCES", "TRIES", "LAST ERROR"),
        (
            (
                local_time(job["created"]),
                job["jobId"],
                job["jobName"],
                job["state"],
                job["platformState"],
                job["instances"],
                job["tries"],
                job["lastError"],
            )
            for job in jobs
        ),
        "no jobs",
    )


@app.command()
def show(
    job_id: Annotated[str, typer.Argument(help="The job's ID.")],
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Show all that is known of one job.

    Example: `dicom-adapter jobs show 6c2f…`
    """
    job = call(url, "GET", "jobs", job_id)
    if json:
        print_json(job)
        return
    run = job.pop("run") or {}
    steps = job.pop("steps")
    print_table(("FIELD", "VALUE"), ((name, _told(name, value)) for name, value in job.items()), "")
    if steps:
        print()
        print_table(("TIME", "STATE"), ((local_time(step["time"]), step["state"]) for step in steps), "")
    if run:
        print()
        output = run.pop("lastOutput")
        print_table(("RUN", "VALUE"), ((name, _told(name, value)) for name, value in run.items()), "")
        print("\nthe end of its output:\n" + printable(output) if output else "\nit has put nothing out")


def _told(name: str, value: object) -> object:
    return local_time(value) if name in _TIMES and isinstance(value, str) else value


@app.command()
def retry(
    *,
    job_ids: JobIds = None,
    ae_title: AeTitleChoice = None,
    pipeline: PipelineChoice = None,
    since: Since = None,
    until: Until = None,
    platform: Annotated[
        str | None, typer.Option(help="Failed: jobs whose pipeline failed, instead of those that faulted.")
    ] = None,
    every: Every = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Submit faulted jobs again, or have the embedded platform run failed ones again: those named, or all that match.

    A job that failed on the embedded platform keeps its input for a week, while there is room.

    Example: `dicom-adapter jobs retry --aetitle COVIDAET --since 2024-05-31T08:00`

    Example: `dicom-adapter jobs retry --platform Failed --pipeline 7d1b…`
    """
    chosen = {**_choice(ae_title, pipeline, since, until), **choice(platformState=platform)}
    _decide(url, "retry", job_ids or [], chosen, every=every)


@app.command()
def discard(
    *,
    job_ids: JobIds = None,
    ae_title: AeTitleChoice = None,
    pipeline: PipelineChoice = None,
    since: Since = None,
    until: Until = None,
    platform: Annotated[
        str | None,
        typer.Option(help="Succeeded: the results of jobs, Failed: the input that they keep, instead of faulted jobs."),
    ] = None,
    every: Every = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Give faulted jobs up, whose instances may then be deleted; or what ended ones have left on this machine.

    Of a job that succeeded on the embedded platform that is its results, unless an export waits for them or failed; of
    one that failed its input, which is kept to run it again.

    Example: `dicom-adapter jobs discard 6c2f…`

    Example: `dicom-adapter jobs discard --platform Succeeded --until 2024-05-31T00:00`
    """
    instead = choice(platformState=platform)
    if instead and job_ids:
        raise UsageError("leave --platform out: of a job that is named, whatever it has left is discarded")
    _decide(url, "discard", job_ids or [], _choice(ae_title, pipeline, since, until), every=every, instead=instead)


def _choice(ae_title: str | None, pipeline: str | None, since: str | None, until: str | None) -> dict[str, str]:
    given = choice(aeTitle=ae_title, pipelineId=pipeline, since=since, until=until)
    return {name: utc_time(value) if name in ("since", "until") else value for name, value in given.items()}


def _decide(
    url: str,
    verb: str,
    job_ids: list[str],
    chosen: dict[str, str],
    *,
    every: bool,
    instead: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Have it done for those that are named, that match, or for all of a kind; `instead` says of which kind."""
    if sum((bool(job_ids), bool(chosen), every)) != 1:
        further = ", --platform" if verb == "retry" else ""
        raise UsageError(
            f"say which jobs to {verb}: their IDs, or --aetitle, --pipeline, --since, --until{further}, or --all"
        )
    if job_ids:
        decide_each(url, verb, "jobs", job_ids, "job")
    else:
        decide_all(url, verb, "jobs", {**chosen, **instead}, "job")
