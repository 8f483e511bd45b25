"""`create`, `list` and `delete` of what is configured: AE titles, sources, destinations, pipelines."""

import shlex
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from cli.api import DEFAULT_URL, Url, call
from cli.output import Json, print_json, print_table, printable
from protocol.errors import UsageError

create = typer.Typer(no_args_is_help=True, help="Create an AE title, a source, a destination, or a pipeline.")
listing = typer.Typer(no_args_is_help=True, help="List AE titles, sources, destinations, or pipelines.")

AeTitle = Annotated[
    str, typer.Option("-a", "--aetitle", "--ae-title", help="AE title: 1 to 16 characters; case counts.")
]
Name = Annotated[str, typer.Option("-n", "--name", help="Its name; by default the AE title.")]
HostIp = Annotated[
    str,
    typer.Option("-i", "--ip", "--host-ip", help="Address, network (10.20.30.0/24) or name; several with commas."),
]


class Kind(StrEnum):
    """What can be configured, by the words of the command line."""

    AETITLE = "aetitle"
    SRC = "src"
    DEST = "dest"
    PIPELINE = "pipeline"

    @property
    def path(self) -> str:
        """The last component of its address in the API."""
        return {"aetitle": "claraaetitle", "src": "sourceaetitle", "dest": "destinationaetitle"}.get(self, self.value)


@create.command("aetitle")
def create_aetitle(
    *,
    ae_title: AeTitle,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE...", help="Of its job processor; each pipeline-NAME=ID makes a job."),
    ] = None,
    name: Name = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="An instance that comes again replaces the one in its group.")
    ] = False,
    ignored: Annotated[
        list[str] | None,
        typer.Option("--ignored-sop-classes", metavar="UID", help="Answered Success, not stored; repeat, or commas."),
    ] = None,
    processor: Annotated[str, typer.Option("--processor", help="An installed job processor.")] = "",
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Create an AE title: what is sent to it is grouped, and each group makes its pipelines' jobs.

    Settings of the AE title job processor: `timeout` (seconds of quiet that close a group, at least 5), `groupBy` (a
    DICOM tag, by default 0020,000D), `priority` (lower, normal, higher, immediate), `jobRetryDelay` (ms).

    Example: `dicom-adapter create aetitle -a COVIDAET timeout=10 pipeline-covid=ID`
    """
    processor_settings = _settings(settings or [])
    entity = {
        "name": name or ae_title,
        "aeTitle": ae_title,
        "overwriteSameInstance": overwrite,
        "ignoredSopClasses": [uid for text in ignored or () for uid in text.replace(",", " ").split()],
        "processorSettings": processor_settings,
        **({"processor": processor} if processor else {}),
    }
    _create(url, Kind.AETITLE, entity, json)
    _warn_of_unknown_pipelines(url, processor_settings)


@create.command("src")
def create_source(
    *,
    ae_title: AeTitle,
    host_ip: HostIp,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Create a source: who may send, by calling AE title and address.

    Example: `dicom-adapter create src -a MYPACS -i 10.20.30.1`
    """
    _create(url, Kind.SRC, {"aeTitle": ae_title, "hostIp": host_ip}, json)


@create.command("dest")
def create_destination(
    *,
    ae_title: AeTitle,
    host_ip: HostIp,
    port: Annotated[int, typer.Option("-p", "--port", help="TCP port, 1 to 65535.")],
    name: Name = "",
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Create a destination: where results go.

    Example: `dicom-adapter create dest -n MYPACS -a MYPACSAET -i 10.20.30.2 -p 1104`
    """
    entity = {"name": name or ae_title, "aeTitle": ae_title, "hostIp": host_ip, "port": port}
    _create(url, Kind.DEST, entity, json)


@create.command("pipeline")
def create_pipeline(
    *,
    name: Annotated[str, typer.Option("-n", "--name", help="Its name, unique.")],
    command: Annotated[
        list[str], typer.Argument(metavar="-- CMD...", help="Program and arguments, with {input} and {output} in them.")
    ],
    exports: Annotated[
        list[str] | None,
        typer.Option("--export", metavar="DEST", help="Destination's name or dicomweb:URL; repeatable."),
    ] = None,
    user: Annotated[str, typer.Option(help="Account that runs it; by default the service's own.")] = "",
    timeout: Annotated[int | None, typer.Option(help="Seconds that a run may take.", min=1)] = None,
    pipeline_id: Annotated[
        str, typer.Option("--id", help="The ID that AE titles or jobs name already; by default a new one.")
    ] = "",
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Register a command with the embedded platform; prints the pipeline's ID as the last word.

    `{input}` and `{output}` become the directories of a run wherever they stand in an argument; they are also in the
    environment as INPUT_DIR and OUTPUT_DIR, beside JOB_ID. DICOM files in the output directory are sent to each
    `--export`; credentials of a DICOMweb service stand in its URL: `USER:PASSWORD@` (Basic) or `:TOKEN@` (Bearer)
    before the host.

    Example: `dicom-adapter create pipeline -n covid --export MYPACS -- /opt/covid/run.sh {input} {output}`
    """
    entity = {
        "name": name,
        "command": command,
        "exports": exports or [],
        "user": user,
        **({} if timeout is None else {"timeoutSeconds": timeout}),
        **({"pipelineId": pipeline_id} if pipeline_id else {}),
    }
    _create(url, Kind.PIPELINE, entity, json)
    _warn_of_unknown(url, exports or [])


def _warn_of_unknown(url: str, exports: list[str]) -> None:
    """A destination may be made later, but a name that is misspelt had better be seen now."""
    names = [name for name in exports if "://" not in name]
    known = {each["name"].casefold() for each in call(url, "GET", "config", Kind.DEST.path)} if names else set()
    for name in names:
        if name.casefold() not in known:
            print(
                f"dicom-adapter: there is no destination {printable(name)} yet: exports to it fail until it is created "
                "(dicom-adapter create dest)",
                file=sys.stderr,
            )


def _warn_of_unknown_pipelines(url: str, settings: dict[str, str]) -> None:
    """A name where the ID belongs, or an ID that is misspelt: its jobs would fault. Clara's are not known here."""
    named = {key: value for key, value in settings.items() if key.casefold().startswith("pipeline-")}
    pipelines = call(url, "GET", "config", Kind.PIPELINE.path) if named else []
    known = {each["pipelineId"] for each in pipelines}
    for key, value in named.items():
        if pipelines and value.casefold() not in known:
            remedy = next((f": its ID is {each['pipelineId']}" for each in pipelines if each["name"] == value), "")
            print(
                f"dicom-adapter: {printable(key)}={printable(value)} is no pipeline of the embedded platform{remedy}; "
                "jobs for it fault until there is one (`create pipeline --id`), or the AE title names another",
                file=sys.stderr,
            )


def _create(url: str, kind: Kind, entity: dict[str, Any], json: bool) -> None:
    created = call(url, "POST", "config", kind.path, body=entity)
    if json:
        print_json(created)
    elif kind is Kind.PIPELINE:
        print(f"created pipeline {created['name']}: {created['pipelineId']}")
    else:
        print(f"created {kind} {created.get('name') or created['aeTitle']}")


def _settings(written: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in map(_pair, written):
        if key in found:
            raise UsageError(
                f"{key} is given more than once: pipelines have different names, pipeline-A=ID pipeline-B=ID"
            )
        found[key] = value
    return found


def _pair(setting: str) -> tuple[str, str]:
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise UsageError(f"{setting!r} is no setting: write KEY=VALUE, such as timeout=10 or pipeline-covid=ID")
    return key, value


@listing.command("aetitle")
def list_aetitles(url: Url = DEFAULT_URL, json: Json = False) -> None:
    """List AE titles with the settings of their job processors."""
    found = call(url, "GET", "config", Kind.AETITLE.path)
    _list(
        found,
        json,
        ("NAME", "AE TITLE", "SETTINGS", "OVERWRITE", "IGNORED SOP CLASSES"),
        lambda each: (
            each["name"],
            each["aeTitle"],
            " ".join(f"{key}={value}" for key, value in (each["processorSettings"] or {}).items()),
            "yes" if each["overwriteSameInstance"] else "no",
            " ".join(each["ignoredSopClasses"] or ()),
        ),
        "no AE titles; create one with: dicom-adapter create aetitle -a NAME pipeline-NAME=ID",
    )


@listing.command("src")
def list_sources(url: Url = DEFAULT_URL, json: Json = False) -> None:
    """List sources: who may send."""
    found = call(url, "GET", "config", Kind.SRC.path)
    empty = "no sources; create one with: dicom-adapter create src -a AETITLE -i ADDRESS"
    _list(found, json, ("AE TITLE", "ADDRESS"), lambda each: (each["aeTitle"], each["hostIp"]), empty)


@listing.command("dest")
def list_destinations(url: Url = DEFAULT_URL, json: Json = False) -> None:
    """List destinations: where results go."""
    found = call(url, "GET", "config", Kind.DEST.path)
    _list(
        found,
        json,
        ("NAME", "AE TITLE", "ADDRESS", "PORT"),
        lambda each: (each["name"], each["aeTitle"], each["hostIp"], each["port"]),
        "no destinations; create one with: dicom-adapter create dest -n NAME -a AETITLE -i ADDRESS -p PORT",
    )


@listing.command("pipeline")
def list_pipelines(url: Url = DEFAULT_URL, json: Json = False) -> None:
    """List the pipelines of the embedded platform."""
    found = call(url, "GET", "config", Kind.PIPELINE.path)
    _list(
        found,
        json,
        ("ID", "NAME", "COMMAND", "EXPORTS", "USER", "SECONDS"),
        lambda each: (
            each["pipelineId"],
            each["name"],
            shlex.join(each["command"]),
            " ".join(each["exports"]),
            each["user"],
            each["timeoutSeconds"],
        ),
        "no pipelines; create one with: dicom-adapter create pipeline -n NAME -- CMD {input} {output}",
    )


def _list(found: list[dict[str, Any]], json: bool, headings: tuple[str, ...], row: Any, empty: str) -> None:
    if json:
        print_json(found)
    else:
        print_table(headings, (row(each) for each in found), empty)


def delete(
    kind: Annotated[Kind, typer.Argument(help="What it is.")],
    key: Annotated[str, typer.Argument(help="Its name; of a source the AE title, of a pipeline its ID or name.")],
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Delete an AE title, source, destination or pipeline. What is under way goes on to its end.

    Example: `dicom-adapter delete src MYPACS`
    """
    deleted = call(url, "DELETE", "config", kind.path, key)
    if json:
        print_json(deleted)
    else:
        named, ae_title = deleted.get("name") or deleted["aeTitle"], deleted.get("aeTitle")
        print(f"deleted {kind} {named}" + (f", AE title {ae_title}" if ae_title not in (None, named) else ""))
