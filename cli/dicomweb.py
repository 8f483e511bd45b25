"""`dicomweb`: query, retrieve and store against any DICOMweb server (PS3.18), without a gateway."""

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import typer

from cli.output import Json, print_json, print_table, size
from protocol.errors import AdapterError, CannotCreateError, NotFoundError, RefusedError, UnavailableError, UsageError

if TYPE_CHECKING:
    import httpx
    from rich.progress import Progress

    from protocol.dicomweb.multipart import Part

app = typer.Typer(no_args_is_help=True, help="Query, retrieve and store at any DICOMweb server.")

Service = Annotated[str, typer.Argument(metavar="URL", help="Of the service, such as http://host/dicom-web.")]
AuthType = Annotated[str, typer.Option("--auth-type", help="None, Basic or Bearer.")]
AuthId = Annotated[
    str,
    typer.Option(
        "--auth-id",
        envvar="DICOMWEB_AUTH_ID",
        help="user:password, or its base64, for Basic; the token for Bearer. Better in the variable.",
    ),
]
Study = Annotated[str, typer.Option("--study", help="Study Instance UID.")]
Series = Annotated[str, typer.Option("--series", help="Series Instance UID; with --study.")]
Instance = Annotated[str, typer.Option("--instance", help="SOP Instance UID; with --series.")]

_BATCH_FILES = 10
_JSON_TYPE = "application/dicom+json"
_OBJECTS = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_COLUMNS = {
    "studies": ("StudyInstanceUID", "PatientID", "PatientName", "StudyDate", "AccessionNumber", "StudyDescription"),
    "series": ("SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "StudyInstanceUID"),
    "instances": ("SOPInstanceUID", "SOPClassUID", "InstanceNumber", "SeriesInstanceUID"),
}
_TAGS = {
    "StudyInstanceUID": "0020000D",
    "SeriesInstanceUID": "0020000E",
    "SOPInstanceUID": "00080018",
    "SOPClassUID": "00080016",
    "PatientID": "00100020",
    "PatientName": "00100010",
    "StudyDate": "00080020",
    "AccessionNumber": "00080050",
    "StudyDescription": "00081030",
    "Modality": "00080060",
    "SeriesNumber": "00200011",
    "SeriesDescription": "0008103E",
    "InstanceNumber": "00200013",
}


@app.command()
def query(
    service: Service,
    *,
    match: Annotated[
        list[str] | None, typer.Option("-m", "--match", metavar="NAME=VALUE", help="Keyword or tag, and its value.")
    ] = None,
    level: Annotated[str, typer.Option(help="studies, series or instances.")] = "studies",
    study: Study = "",
    series: Series = "",
    fields: Annotated[list[str] | None, typer.Option("--field", help="Ask for this attribute, too.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many.", min=1)] = None,
    fuzzy: Annotated[bool, typer.Option(help="Names may be similar.")] = False,
    auth_type: AuthType = "None",
    auth_id: AuthId = "",
    json: Json = False,
) -> None:
    """Search (QIDO-RS).

    Example: `dicom-adapter dicomweb query http://host/dicom-web -m PatientID=4711`
    """
    if level not in _COLUMNS:
        raise UsageError(f"{level!r} is no level: write one of {', '.join(_COLUMNS)}")
    parameters = [_matching(one) for one in match or []]
    parameters += [("includefield", field) for field in fields or []]
    parameters += [("limit", str(limit))] if limit else []
    parameters += [("fuzzymatching", "true")] if fuzzy else []
    if level == "studies":
        path = "/studies"
        parameters += [("StudyInstanceUID", _checked(study, "study"))] if study else []
    else:
        path = (_path(study, series, "") if study else "") + f"/{level}"
    with _client(auth_type, auth_id) as client:
        answer = _get(client, service, path, parameters)
    try:
        found = answer.json() if answer.content.strip() else []
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise UnavailableError(f"{_shown(service)} does not answer as a DICOMweb service: see its address")
    if json:
        print_json(found)
        return
    columns = _COLUMNS[level]
    print_table(columns, ([_value(one, _TAGS[name]) for name in columns] for one in found), f"no {level}")


@app.command()
def retrieve(
    service: Service,
    *,
    study: Study,
    series: Series = "",
    instance: Instance = "",
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory; it is made when it is missing.")] = Path(),
    auth_type: AuthType = "None",
    auth_id: AuthId = "",
) -> None:
    """Fetch objects as they are (WADO-RS), each into OUTPUT/STUDY/SERIES/INSTANCE.dcm.

    Example: `dicom-adapter dicomweb retrieve http://host/dicom-web --study 1.2.3 -o study`
    """
    from protocol.dicomweb.multipart import read_parts

    objects, received = 0, 0
    with _client(auth_type, auth_id) as client, _progress() as progress:
        task = progress.add_task("retrieving", total=None)
        with _stream(
            client, "GET", f"{_base(service)}{_path(study, series, instance)}", {"Accept": _OBJECTS}
        ) as answer:
            _check(answer, service)
            total = int(answer.headers.get("Content-Length") or 0)
            progress.update(task, total=total or None)
            try:
                for part in read_parts(answer.iter_raw(), answer.headers.get("Content-Type", "")):
                    received += _keep(part, output, objects, progress, task)
                    objects += 1
                    progress.update(task, description=f"retrieving, {objects} objects")
            except UnavailableError as error:
                raise UnavailableError(f"{error}; {objects} objects are whole, and in {output}") from None
    if not objects:
        raise NotFoundError(f"{_shown(service)} has no such objects")
    print(f"retrieved: {objects} objects, {size(received)}, in {output}")


@app.command()
def store(
    service: Service,
    paths: Annotated[list[Path], typer.Argument(help="Files, or directories that are searched.", exists=True)],
    *,
    study: Annotated[str, typer.Option("--study", help="All of them belong to this study.")] = "",
    auth_type: AuthType = "None",
    auth_id: AuthId = "",
) -> None:
    """Send objects as they are (STOW-RS), ten at a time; what was not stored is listed.

    Example: `dicom-adapter dicomweb store http://host/dicom-web study/`
    """
    files = sorted(_files(paths))
    if not files:
        raise UsageError("there is no file in what was named")
    failed: list[tuple[str, str]] = []
    stored, sent = 0, 0
    known: dict[Path, str] = {}
    for file in files:
        uid = _uid_of(file)
        if uid:
            known[file] = uid
        else:
            failed.append((str(file), "it is no DICOM file, or has no SOP Instance UID"))
    with _client(auth_type, auth_id) as client, _progress() as progress:
        task = progress.add_task("storing", total=sum(file.stat().st_size for file in known))
        waiting = iter(known)
        while batch := list(itertools.islice(waiting, _BATCH_FILES)):
            results = _send(client, service, study, batch, [known[file] for file in batch])
            failed += [(str(file), reason) for file, reason in zip(batch, results, strict=True) if reason]
            stored += results.count("")
            sent = sum(file.stat().st_size for file in batch)
            progress.update(task, advance=sent, description=f"storing, {stored} objects")
    print(f"stored: {stored} of {len(files)} objects")
    if failed:
        print_table(("FILE", "REASON"), failed, "")
        raise RefusedError(f"{len(failed)} of {len(files)} files were not stored")


def _send(client: "httpx.Client", service: str, study: str, batch: Sequence[Path], uids: Sequence[str]) -> list[str]:
    """Send a batch; for each file why it was not stored, or ""."""
    from protocol.dicomweb.store import LONGEST_ANSWER_BYTES, StoreBody, read_answer

    body = StoreBody([str(file) for file in batch], [file.stat().st_size for file in batch])
    address = f"{_base(service)}/studies" + (f"/{_checked(study, 'study')}" if study else "")
    data = b""
    with _stream(client, "POST", address, body.headers, iter(body)) as answer:
        for chunk in answer.iter_raw():
            data += chunk
            if len(data) > LONGEST_ANSWER_BYTES:
                raise UnavailableError(f"{_shown(service)} does not stop answering")
    said = read_answer(answer.headers.get("Content-Type", ""), data)
    if answer.status_code != 409 and (answer.status_code >= 300 or (said is None and data.strip())):
        _check(answer, service)
        raise UnavailableError(f"{_shown(service)} does not answer as a DICOMweb service: see its address")
    if said is None:
        silent = "" if answer.status_code == 200 else f"the server answered {answer.status_code} and no more"
        return [silent] * len(uids)
    reasons = {uid: f"the server's reason is 0x{reason:04X}" for uid, reason in said.failed.items()}
    return ["" if uid in said.stored else reasons.get(uid, "the server does not name it") for uid in uids]


def _keep(part: "Part", output: Path, number: int, progress: "Progress", task: Any) -> int:
    """Write a part's bytes, and give them their name when they are whole; returns how many there were."""
    temporary = output / f".{os.getpid()}-{number}.part"
    length = 0
    try:
        output.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            for chunk in part:
                file.write(chunk)
                length += len(chunk)
                progress.update(task, advance=len(chunk))
        path = output / _name(temporary, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(path)
    except OSError as error:
        raise CannotCreateError(f"cannot write below {output}: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return length


def _name(file: Path, number: int) -> Path:
    """The path of an object by its UIDs; what has none is kept under a number."""
    from protocol.dimse.uids import is_uid

    uids = _read_uids(file)
    if all(is_uid(uid) for uid in uids):
        study, series, instance = uids
        return Path(study) / series / f"{instance}.dcm"
    return Path(f"object-{number}.dcm")


def _uid_of(file: Path) -> str:
    return _read_uids(file)[2]


def _read_uids(file: Path) -> tuple[str, str, str]:
    """Study, Series and SOP Instance UID; empty where there is none."""
    import pydicom

    names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    try:
        dataset = pydicom.dcmread(file, specific_tags=list(names), stop_before_pixels=True)
        study, series, instance = (str(dataset.get(name) or "") for name in names)
    except Exception:  # pydicom has no limit to what it raises for what is no DICOM
        return "", "", ""
    return study, series, instance


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from (below for below in path.rglob("*") if below.is_file())
        else:
            yield path


def _matching(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"{text!r} is no match: write NAME=VALUE, such as PatientID=4711 or 00100020=4711")
    return name, value


def _path(study: str, series: str, instance: str) -> str:
    """The path of what is meant, below the service's address."""
    if (series and not study) or (instance and not series):
        raise UsageError("--series goes with --study, and --instance with --series")
    path = f"/studies/{_checked(study, 'study')}"
    path += f"/series/{_checked(series, 'series')}" if series else ""
    return path + (f"/instances/{_checked(instance, 'instance')}" if instance else "")


def _checked(uid: str, what: str) -> str:
    from protocol.dimse.uids import is_uid

    if not is_uid(uid):
        raise UsageError(f"--{what} {uid!r} is no UID: digits and dots, at most 64")
    return uid


def _base(service: str) -> str:
    return service.rstrip("/")


def _shown(service: str) -> str:
    """An address without the credentials that it may hold."""
    scheme, _, rest = service.rpartition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _client(auth_type: str, auth_id: str) -> "httpx.Client":
    from protocol.dicomweb.auth import authorization
    from protocol.dicomweb.http import open_client

    return open_client({**authorization(auth_type, auth_id), "Accept-Encoding": "identity"})


def _get(client: "httpx.Client", service: str, path: str, parameters: list[tuple[str, str]]) -> "httpx.Response":
    import httpx

    try:
        answer = client.get(f"{_base(service)}{path}?{urlencode(parameters)}", headers={"Accept": _JSON_TYPE})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreachable(service, error) from None
    _check(answer, service)
    return answer


class _Stream(AbstractContextManager["httpx.Response"]):
    """An answer that is read as it comes, with the library's errors as ours."""

    def __init__(self, address: str, stream: "AbstractContextManager[httpx.Response]") -> None:
        self._address = address
        self._stream = stream

    def __enter__(self) -> "httpx.Response":
        import httpx

        try:
            return self._stream.__enter__()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _unreachable(self._address, error) from None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        import httpx

        self._stream.__exit__(kind, error, trace)
        if isinstance(error, httpx.HTTPError):
            raise _unreachable(self._address, error) from None


def _stream(
    client: "httpx.Client",
    method: str,
    address: str,
    headers: dict[str, str],
    content: Iterator[bytes] | None = None,
) -> _Stream:
    return _Stream(address, client.stream(method, address, headers=headers, content=content))


def _unreachable(address: str, error: Exception) -> AdapterError:
    import httpx

    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return UsageError(f"{_shown(address)!r} is no address of a service: write http://HOST/PATH")
    what = "does not answer in time" if isinstance(error, httpx.TimeoutException) else "cannot be reached, or broke off"
    return UnavailableError(f"{_shown(address)} {what} ({str(error) or type(error).__name__})")


def _check(answer: "httpx.Response", service: str) -> None:
    """Raise what a status of failure means."""
    status, told = answer.status_code, f"{_shown(service)} answered {answer.status_code} {answer.reason_phrase}"
    if status in (401, 403):
        raise RefusedError(f"{told}: give other credentials with --auth-type and DICOMWEB_AUTH_ID")
    if status == 404:
        raise NotFoundError(f"{told}: there is no such thing, or the address is another one")
    if status in (408, 429) or status >= 500:
        raise UnavailableError(told)
    if status >= 300:
        raise RefusedError(told)


def _value(dataset: dict[str, Any], tag: str) -> str:
    """An attribute of the DICOM JSON Model for people."""
    element = dataset.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    if not isinstance(values, list):
        return ""
    return "\\".join(str(value.get("Alphabetic", "")) if isinstance(value, dict) else str(value) for value in values)


def _progress() -> "Progress":
    """A bar on standard error, for terminals; programs read what is printed at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
