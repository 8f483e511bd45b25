"""The REST examples of the original's documentation, by curl, and what follows from them on the DICOM port at once."""

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.below import files_below
from tests.gateway import Gateway
from tests.peers import Sender, echoscu, start_storescu, storescu, wait_for
from tests.samples import Study, make_study

_DOTNET = "Nvidia.Clara.DicomAdapter.Server.Processors.AeTitleJobProcessor, Nvidia.Clara.DicomAdapter"


@dataclass(frozen=True)
class Answer:
    """What curl printed: the status code, the headers by lower-case name, and the body as JSON."""

    status: int
    headers: Mapping[str, str]
    body: Any


class Rest:
    """The API as an administrator's script uses it.

    Args:
        url: of the API.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(self, method: str, path: str, body: object = None) -> Answer:
        """Run curl; a body that is no text is sent as JSON."""
        command = ["curl", "--silent", "--show-error", "--include", "--location", "--request", method]
        if body is not None:
            data = body if isinstance(body, str) else json.dumps(body)
            command += ["--header", "Content-Type: application/json", "--data-raw", data]
        printed = subprocess.run(
            [*command, f"{self._url}{path}"], capture_output=True, text=True, timeout=30, check=True
        ).stdout
        head, _, content = printed.replace("\r\n", "\n").partition("\n\n")
        first, *lines = head.splitlines()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Answer(int(first.split()[1]), headers, json.loads(content) if content else None)

    def problem(self, method: str, path: str, body: object = None) -> Answer:
        """The same, where the answer is problem details (RFC 9457) of its status code."""
        answer = self(method, path, body)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.body["status"] == answer.status
        assert answer.body["title"]
        assert answer.body["detail"]
        return answer


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(scope="module")
def rest(shared: Gateway) -> Rest:
    return Rest(shared.url)


@pytest.fixture(scope="module")
def pipeline(shared: Gateway) -> str:
    """A pipeline's ID."""
    return shared.add_pipeline("nothing", ["/bin/true"])


AE_TITLE = {
    "name": "brain-tumor",
    "aeTitle": "BrainTumorModel",
    "overwriteSameInstance": True,
    "ignoredSopClasses": ["1.2.840.10008.5.1.4.1.1.7"],
    "processor": _DOTNET,
    "processorSettings": {
        "timeout": 5,
        "jobRetryDelay": 100,
        "priority": "higher",
        "groupBy": "0020,000D",
        "pipeline-brain-tumor": "7b9cda79ed834fdc87cd4169216c4011",
    },
}
SHOWN = {**AE_TITLE, "processorSettings": {key: str(value) for key, value in AE_TITLE["processorSettings"].items()}}  # type: ignore[attr-defined]
SOURCE = {"hostIp": "10.20.30.1", "aeTitle": "USEAST"}
DESTINATION = {"name": "USEAST", "hostIp": "10.20.30.2", "aeTitle": "USEASTAET", "port": 104}


@pytest.mark.parametrize(
    ("kind", "sent", "shown", "key", "edit"),
    [
        ("claraaetitle", AE_TITLE, SHOWN, "brain-tumor", {"overwriteSameInstance": False}),
        ("sourceaetitle", SOURCE, SOURCE, "USEAST", {"hostIp": "10.20.30.3"}),
        ("destinationaetitle", DESTINATION, DESTINATION, "USEAST", {"port": 11112, "aeTitle": "USEAST2"}),
    ],
)
def test_every_documented_call(
    rest: Rest, *, kind: str, sent: dict[str, Any], shown: dict[str, Any], key: str, edit: dict[str, Any]
) -> None:
    """POST 201 with Location and the entity, GET of all and of one, PUT, DELETE 200 with the entity, then 404."""
    path = f"/api/config/{kind}"
    assert (rest("GET", path).status, rest("GET", path).body) == (200, [])
    created = rest("POST", f"{path}/", sent)
    assert (created.status, created.body) == (201, shown)
    assert created.headers["content-type"] == "application/json"
    assert created.headers["location"] == f"{path}/{key}"
    assert rest("GET", path).body == [shown]
    found = rest("GET", created.headers["location"])
    assert (found.status, found.body) == (200, shown)

    again = rest.problem("POST", path, sent)
    assert (again.status, again.body["title"]) == (400, "Validation error.")
    assert key in again.body["detail"]

    replaced = rest("PUT", f"{path}/{key}", {**sent, **edit})
    assert (replaced.status, replaced.body) == (200, {**shown, **edit})
    assert rest("GET", f"{path}/{key}").body == {**shown, **edit}

    deleted = rest("DELETE", f"{path}/{key}")
    assert (deleted.status, deleted.body) == (200, {**shown, **edit})
    for method, body in (("GET", None), ("PUT", sent), ("DELETE", None)):
        assert rest.problem(method, f"{path}/{key}", body).status == 404


def test_paths_and_names_in_any_case_and_numbers_as_text(rest: Rest) -> None:
    """As .NET reads them; what it does not know it ignores."""
    created = rest(
        "POST",
        "/API/Config/DestinationAETitle",
        {"NAME": "Any", "AETitle": "ANYAET", "HOSTIP": "pacs.local", "Port": "104", "comment": {"by": "us"}},
    )
    shown = {"name": "Any", "aeTitle": "ANYAET", "hostIp": "pacs.local", "port": 104}
    assert (created.status, created.body) == (201, shown)
    assert rest("GET", "/api/config/DESTINATIONaetitle/ANY").body == shown, "destinations' names have no case"
    assert rest("DELETE", "/Api/Config/Destinationaetitle/any").body == shown


def test_least_that_is_needed_and_an_ae_title_found_by_either_name(rest: Rest) -> None:
    """The name is the AE title unless given, the processor the default one; settings are kept as text."""
    least = {"aeTitle": "COVIDAET", "processorSettings": {"pipeline-covid": "7b9cda79", "timeout": "10"}}
    created = rest("POST", "/api/config/claraaetitle", least)
    assert created.status == 201
    assert created.body == {
        **least,
        "name": "COVIDAET",
        "overwriteSameInstance": False,
        "ignoredSopClasses": [],
        "processor": "aetitle",
    }
    named = rest("POST", "/api/config/claraaetitle", {**least, "aeTitle": "COVID2", "name": "second"})
    assert rest("GET", "/api/config/claraaetitle/COVID2").body == named.body
    assert rest("GET", "/api/config/claraaetitle/second").body == named.body
    for key in ("COVIDAET", "COVID2"):
        assert rest("DELETE", f"/api/config/claraaetitle/{key}").status == 200


@pytest.mark.parametrize(
    ("kind", "body", "errors"),
    [
        (
            "claraaetitle",
            {"aeTitle": "A" * 17, "processorSettings": {"timeout": "soon", "priority": "urgent", "colour": "red"}},
            ["aeTitle", "'timeout' is 'soon'", "'priority' is 'urgent'", "'colour' is unknown", "no pipeline is set"],
        ),
        ("claraaetitle", {"aeTitle": "A", "processor": "Contoso.Processor"}, ["'Contoso.Processor' is not installed"]),
        ("claraaetitle", {"aeTitle": " ", "processorSettings": {"pipeline-a": "p"}}, ["aeTitle is blank"]),
        ("sourceaetitle", {"aeTitle": "", "hostIp": ""}, ["aeTitle is blank", "hostIp is blank"]),
        ("destinationaetitle", {"name": "", "aeTitle": "A", "hostIp": "h", "port": 65536}, ["name", "port '65536'"]),
    ],
)
def test_validation_tells_every_error(rest: Rest, kind: str, body: dict[str, Any], errors: list[str]) -> None:
    answer = rest.problem("POST", f"/api/config/{kind}", body)
    assert (answer.status, answer.body["title"]) == (400, "Validation error.")
    for error in errors:
        assert error in answer.body["detail"]
    assert len(answer.body["errors"]) == len(errors)
    assert rest("GET", f"/api/config/{kind}").body == []


def test_what_is_no_json_and_no_path(rest: Rest) -> None:
    assert rest.problem("POST", "/api/config/sourceaetitle", '{"aeTitle": "A",').body["title"] == "Malformed JSON."
    assert rest.problem("GET", "/api/config/unknown").status == 404
    assert rest.problem("DELETE", "/api/config/sourceaetitle").status == 405
    assert rest("GET", "/health/status").status == 200


# What follows at once.


@contextlib.contextmanager
def in_the_middle(gateway: Gateway, study: Study, called: str) -> Iterator[Sender]:
    """A storescu that has sent some of a study and is stopped while the block lasts; afterwards it goes on."""
    before = set(files_below(gateway.spool, ".dcm"))
    sender = start_storescu(gateway.port, study.directory, called=called, calling="MODALITY")
    try:
        wait_for(lambda: len(set(files_below(gateway.spool, ".dcm")) - before) >= 3, 15, "some objects", interval=0.001)
        sender.process.send_signal(signal.SIGSTOP)
        assert sender.process.poll() is None, "it was done already: give it more objects"
        yield sender
    finally:
        sender.process.send_signal(signal.SIGCONT)


def accepted(gateway: Gateway, called: str) -> bool:
    """Whether a new association is accepted now."""
    return echoscu(gateway.port, called=called, calling="MODALITY").statuses == ("Success",)


def ae_title(name: str, pipeline: str, timeout: int = 5) -> dict[str, Any]:
    """A body for POST and PUT."""
    return {"aeTitle": name, "processorSettings": {"timeout": timeout, "pipeline-a": pipeline}}


@pytest.fixture
def source(rest: Rest) -> Iterator[None]:
    """The sender is a known source."""
    assert rest("POST", "/api/config/sourceaetitle", {"aeTitle": "MODALITY", "hostIp": "127.0.0.1"}).status == 201
    yield
    assert rest("DELETE", "/api/config/sourceaetitle/MODALITY").status == 200


@pytest.mark.usefixtures("source")
def test_deleted_in_mid_study(shared: Gateway, rest: Rest, pipeline: str, tmp_path: Path) -> None:
    """Who calls anew is rejected; the association that is open goes on, and its open group makes its job."""
    study = make_study(tmp_path / "study", "PAT-DELETED", 100)
    assert not accepted(shared, "GONE")
    assert rest("POST", "/api/config/claraaetitle", ae_title("GONE", pipeline)).status == 201
    assert accepted(shared, "GONE")
    with in_the_middle(shared, study, "GONE") as sender:
        assert rest("DELETE", "/api/config/claraaetitle/GONE").status == 200
        assert not accepted(shared, "GONE")
    assert sender.result().successes == 100
    assert not accepted(shared, "GONE")
    (job,) = shared.wait_for(lambda: ended(shared, "GONE"), 30, "job of the open group")
    assert job["instances"] == 100


@pytest.mark.usefixtures("source")
def test_deleted_and_created_in_mid_study(shared: Gateway, rest: Rest, pipeline: str, tmp_path: Path) -> None:
    """No instance goes into two jobs, though the AE title comes back while its sender is in the middle."""
    study = make_study(tmp_path / "study", "PAT-AGAIN", 100)
    entity = ae_title("AGAIN", pipeline)
    assert rest("POST", "/api/config/claraaetitle", entity).status == 201
    with in_the_middle(shared, study, "AGAIN") as sender:
        deleted = rest("DELETE", "/api/config/claraaetitle/AGAIN")
        created = rest("POST", "/api/config/claraaetitle", entity)
        assert (deleted.status, created.status) == (200, 201)
        assert accepted(shared, "AGAIN")
    assert sender.result().successes == 100
    shared.wait_for(lambda: ended(shared, "AGAIN"), 30, "job")
    # Once more, in the pause after the job.
    assert rest("DELETE", "/api/config/claraaetitle/AGAIN").status == 200
    assert rest("POST", "/api/config/claraaetitle", entity).status == 201
    late = make_study(tmp_path / "late", "PAT-AGAIN", 1, rows=64, study_uid=study.uid)
    assert storescu(shared.port, late.directory, *study.part(0, 5), called="AGAIN", calling="MODALITY").successes == 6
    jobs = shared.wait_for(lambda: (found := ended(shared, "AGAIN")) and len(found) > 1 and found, 30, "second job")
    assert sorted(job["instances"] for job in jobs) == [1, 100]


@pytest.mark.usefixtures("source")
def test_an_edited_timeout_applies_to_an_open_group(shared: Gateway, rest: Rest, pipeline: str, tmp_path: Path) -> None:
    assert rest("POST", "/api/config/claraaetitle", ae_title("PATIENT", pipeline, timeout=3600)).status == 201
    study = make_study(tmp_path / "study", "PAT-EDITED", 3, rows=64)
    assert storescu(shared.port, study.directory, called="PATIENT", calling="MODALITY").successes == 3
    assert shared.jobs(aeTitle="PATIENT") == []
    assert rest("PUT", "/api/config/claraaetitle/PATIENT", ae_title("PATIENT", pipeline)).status == 200
    (job,) = shared.wait_for(lambda: ended(shared, "PATIENT"), 30, "job after the edit")
    assert job["instances"] == 3


def ended(gateway: Gateway, called: str) -> list[dict[str, Any]]:
    """Jobs of an AE title that have run."""
    return gateway.jobs(aeTitle=called, platformState="Succeeded")


def test_a_newcomer_sets_all_up_by_create(shared: Gateway, tmp_path: Path, keeping_pipeline: list[str]) -> None:
    """`dicom-adapter create …` alone, and a study goes through."""
    study = make_study(tmp_path / "study", "PAT-NEW", 4, rows=64)
    assert storescu(shared.port, study.directory, called="NEWCOMER", calling="SCANNER").rejection

    words = ("create", "pipeline", "-n", "keep", "--", *keeping_pipeline, "{output}")
    keep = shared.cli(*words).stdout.split()[-1]
    shared.cli("create", "aetitle", "-a", "NEWCOMER", f"pipeline-keep={keep}", "timeout=5")
    shared.cli("create", "src", "-a", "SCANNER", "-i", "127.0.0.1")
    shared.cli("create", "dest", "-n", "MYPACS", "-a", "MYPACSAET", "-i", "127.0.0.1", "-p", "1104")

    assert storescu(shared.port, study.directory, called="NEWCOMER", calling="SCANNER").successes == 4
    (job,) = shared.wait_for(lambda: ended(shared, "NEWCOMER"), 30, "job")
    assert len(list((tmp_path / "kept" / job["jobId"]).rglob("*.dcm"))) == 4
    assert shared.run_metadata(job["jobId"]).keys() == {"Source", "Instances", "DicomAdapterJobId"}
    for path in ("claraaetitle/NEWCOMER", "sourceaetitle/SCANNER", "destinationaetitle/MYPACS"):
        assert shared.rest.delete(f"/api/config/{path}").status_code == 200
