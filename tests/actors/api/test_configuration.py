"""The configuration resources over real HTTP: shapes, case, numbers as text, every error at once, and what follows."""

import concurrent.futures
import json
from typing import Any

import httpx
import pytest

from protocol import messages
from protocol.access import AccessFile, AeTitleRule, SourceRule
from protocol.ledger import Ledger
from protocol.states import RunState
from tests.actors.api import rows
from tests.actors.api.surroundings import Owners, Surroundings

AE_TITLE = {"name": "COVIDAET", "aeTitle": "COVIDAET", "processorSettings": {"pipeline-covid": "p1"}}
SOURCE = {"aeTitle": "MYPACS", "hostIp": "10.20.30.1"}
DESTINATION = {"name": "MYPACS", "aeTitle": "MYPACSAET", "hostIp": "10.20.30.2", "port": 1104}
PIPELINE = {"name": "covid", "command": ["/bin/true", "{input}"]}
KINDS = (
    ("claraaetitle", AE_TITLE, "name"),
    ("sourceaetitle", SOURCE, "aeTitle"),
    ("destinationaetitle", DESTINATION, "name"),
    ("pipeline", PIPELINE, "pipelineId"),
)


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem details of an answer."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told: dict[str, Any] = answer.json()
    assert told["status"] == status
    return told


@pytest.mark.parametrize(("kind", "entity", "key"), KINDS)
def test_life_of_an_entity(rest: httpx.Client, kind: str, entity: dict[str, Any], key: str) -> None:
    """201 with its place, found there, listed, replaced, deleted with its last shape, and then unknown."""
    created = rest.post(f"/api/config/{kind}", json=entity)
    assert created.status_code == 201
    assert entity.items() <= {**created.json(), "processorSettings": entity.get("processorSettings")}.items()
    place = created.headers["location"]
    assert place == f"/api/config/{kind}/{created.json()[key]}"
    assert rest.get(place).json() == created.json()
    assert rest.get(f"/api/config/{kind}").json() == [created.json()]
    replaced = rest.put(place, json=entity)
    assert (replaced.status_code, replaced.json()) == (200, created.json())
    deleted = rest.delete(place)
    assert (deleted.status_code, deleted.json()) == (200, created.json())
    assert rest.get(f"/api/config/{kind}").json() == []
    for answer in (rest.get(place), rest.put(place, json=entity), rest.delete(place)):
        problem(answer, 404)


@pytest.mark.parametrize(("kind", "entity", "key"), KINDS)
def test_taken(rest: httpx.Client, kind: str, entity: dict[str, Any], key: str) -> None:
    """A second one of the same key, or name, is a validation error that names it."""
    assert rest.post(f"/api/config/{kind}", json=entity).status_code == 201
    told = problem(rest.post(f"/api/config/{kind}", json=entity), 400)
    assert told["title"] == "Validation error."
    assert "is taken already" in told["detail"]


def test_shapes(rest: httpx.Client) -> None:
    """The original's names, with its defaults filled in."""
    answer = rest.post("/api/config/claraaetitle", json={"aeTitle": "X", "processorSettings": {"pipeline-a": 7}})
    assert answer.json() == {
        "name": "X",
        "aeTitle": "X",
        "overwriteSameInstance": False,
        "ignoredSopClasses": [],
        "processor": "aetitle",
        "processorSettings": {"pipeline-a": "7"},
    }
    assert rest.post("/api/config/pipeline", json=PIPELINE).json().keys() == {
        *("pipelineId", "name", "command", "exports", "user", "timeoutSeconds"),
    }


@pytest.mark.parametrize("state", RunState)
def test_a_pipeline_for_which_runs_wait_is_not_deleted(rest: httpx.Client, ledger: Ledger, state: RunState) -> None:
    """They could not begin any more, and no other pipeline gets its ID."""
    pipeline = rest.post("/api/config/pipeline", json=PIPELINE).json()["pipelineId"]
    with ledger.transaction():
        rows.run("j", state, pipeline_id=pipeline)
    answer = rest.delete(f"/api/config/pipeline/{pipeline}")
    waits = state in (RunState.CREATED, RunState.PENDING)
    assert (answer.status_code, "wait to begin" in answer.text) == ((409, True) if waits else (200, False))


def test_a_pipeline_with_a_field_that_is_none(rest: httpx.Client) -> None:
    """Its results would otherwise go nowhere."""
    answer = rest.post("/api/config/pipeline", json={**PIPELINE, "export": ["MYPACS"]})
    assert (answer.status_code, "'export' is not known" in answer.text) == (400, True)


@pytest.mark.parametrize("name", ["A,B", "dicomweb:pacs", "http://pacs"])
def test_destinations_names_that_could_mean_something_else(rest: httpx.Client, name: str) -> None:
    body = {"name": name, "aeTitle": "PACS", "hostIp": "10.0.0.1", "port": 104}
    answer = rest.post("/api/config/destinationaetitle", json=body)
    assert (answer.status_code, "leave out" in answer.text) == (400, True)


def test_names_in_any_case_and_unknown_ones_ignored(rest: httpx.Client) -> None:
    body = {"AETITLE": "A", "hostip": "10.0.0.1", "comment": {"of": ["ours"]}}
    assert rest.post("/API/Config/SourceAeTitle/", json=body).json() == {"aeTitle": "A", "hostIp": "10.0.0.1"}
    assert rest.get("/Api/CONFIG/sourceaetitle/A").status_code == 200
    assert rest.get("/api/config/sourceaetitle/a").status_code == 404, "a key keeps its case"


def test_numbers_and_booleans_as_text(rest: httpx.Client) -> None:
    body = {"name": 7, "aeTitle": 1234, "hostIp": "h", "port": " 104 "}
    assert rest.post("/api/config/destinationaetitle", json=body).json()["port"] == 104
    assert rest.get("/api/config/destinationaetitle/7").json()["aeTitle"] == "1234"
    settings = {"timeout": 10, "pipeline-a": "p", "jobRetryDelay": "100"}
    body = {"aeTitle": "T", "overwriteSameInstance": "True", "processorSettings": settings}
    made = rest.post("/api/config/claraaetitle", json=body).json()
    assert made["overwriteSameInstance"] is True
    assert made["processorSettings"] == {"timeout": "10", "pipeline-a": "p", "jobRetryDelay": "100"}


def test_the_original_processor_name(rest: httpx.Client) -> None:
    """What the original's scripts send as `processor` means the default one."""
    name = "Nvidia.Clara.DicomAdapter.Server.Processors.AeTitleJobProcessor, Nvidia.Clara.DicomAdapter"
    body = {**AE_TITLE, "processor": name}
    assert rest.post("/api/config/claraaetitle", json=body).json()["processor"] == name


LONGEST = {"name": "n" * 64, "aeTitle": "A" * 16, "hostIp": "::1", "port": 65535}


@pytest.mark.parametrize(
    ("kind", "entity"),
    [
        ("destinationaetitle", LONGEST),
        ("destinationaetitle", {**DESTINATION, "port": 1, "aeTitle": "a b!#$%&'()*+-~"}),
        ("destinationaetitle", {**DESTINATION, "name": "Ä/ö?#%2F"}),
        ("sourceaetitle", {"aeTitle": "A", "hostIp": "10.0.0.0/8, pacs.local fe80::1;192.168.1.1"}),
        ("claraaetitle", {**AE_TITLE, "ignoredSopClasses": ["1.2.840.10008.5.1.4.1.1.7", "2.25." + "9" * 58]}),
        ("pipeline", {**PIPELINE, "exports": ["MYPACS", "dicomweb:https://pacs/dicom-web"], "user": "nobody"}),
        ("pipeline", {"name": "sh", "command": ["sh", "-c", "echo\n'x'", ""], "timeoutSeconds": "1"}),
    ],
)
def test_valid(rest: httpx.Client, kind: str, entity: dict[str, Any]) -> None:
    """The edges of what is allowed."""
    created = rest.post(f"/api/config/{kind}", json=entity)
    assert created.status_code == 201, created.text
    assert rest.get(created.headers["location"]).json() == created.json()
    assert rest.delete(created.headers["location"]).json() == created.json()


@pytest.mark.parametrize(
    ("kind", "entity", "errors"),
    [
        ("sourceaetitle", {}, ["aeTitle is missing", "hostIp is missing"]),
        ("sourceaetitle", {"aeTitle": " ", "hostIp": ""}, ["aeTitle is blank", "hostIp is blank"]),
        ("sourceaetitle", {**SOURCE, "aeTitle": "A" * 17}, ["is no AE title"]),
        ("sourceaetitle", {**SOURCE, "aeTitle": "A\\B"}, ["is no AE title"]),
        ("sourceaetitle", {**SOURCE, "aeTitle": "A\tB"}, ["holds control characters"]),
        ("sourceaetitle", {**SOURCE, "aeTitle": "Ä"}, ["is no AE title"]),
        ("sourceaetitle", {**SOURCE, "aeTitle": ["A"]}, ["aeTitle is a list, not a text"]),
        ("sourceaetitle", {**SOURCE, "aeTitle": None}, ["aeTitle is missing"]),
        ("sourceaetitle", {**SOURCE, "hostIp": "300.1.1.1, ok, -x"}, ["'300.1.1.1', '-x'"]),
        ("sourceaetitle", {**SOURCE, "hostIp": "10.0.0.0/33"}, ["'10.0.0.0/33'"]),
        ("sourceaetitle", {**SOURCE, "hostIp": ","}, ["holds nothing"]),
        ("destinationaetitle", {}, ["name is", "aeTitle is", "hostIp is", "port is"]),
        ("destinationaetitle", {**DESTINATION, "port": 0}, ["port '0' is too small"]),
        ("destinationaetitle", {**DESTINATION, "port": "65536"}, ["port '65536' is too large"]),
        ("destinationaetitle", {**DESTINATION, "port": "10a4"}, ["port '10a4' is not a whole number"]),
        ("destinationaetitle", {**DESTINATION, "port": 1.5}, ["port '1.5' is not a whole number"]),
        ("destinationaetitle", {**DESTINATION, "port": True}, ["port 'True' is a boolean"]),
        ("destinationaetitle", {**DESTINATION, "port": {}}, ["port is an object"]),
        ("destinationaetitle", {**DESTINATION, "name": "n" * 65}, ["is too long"]),
        ("destinationaetitle", {**DESTINATION, "hostIp": "10.0.0.0/8"}, ["is neither an address nor a host name"]),
        ("destinationaetitle", {**DESTINATION, "hostIp": "a..b"}, ["is neither an address nor a host name"]),
        ("claraaetitle", {"aeTitle": "A"}, ["processorSettings: "]),
        ("claraaetitle", {**AE_TITLE, "ignoredSopClasses": "1.2"}, ["ignoredSopClasses is a text, not a list"]),
        (
            "claraaetitle",
            {**AE_TITLE, "ignoredSopClasses": ["1.2", "x", "1..2", "1.02", "1." * 32 + "1"]},
            ["ignoredSopClasses[1]", "ignoredSopClasses[2]", "ignoredSopClasses[3]", "ignoredSopClasses[4]"],
        ),
        ("claraaetitle", {**AE_TITLE, "overwriteSameInstance": "yes"}, ["overwriteSameInstance 'yes'"]),
        ("claraaetitle", {**AE_TITLE, "processor": "none.such"}, ["processor: the job processor 'none.such'"]),
        ("claraaetitle", {**AE_TITLE, "processorSettings": [1]}, ["processorSettings is a list"]),
        (
            "claraaetitle",
            {**AE_TITLE, "processorSettings": {"pipeline-a": "p", "x": {}, "y": [1]}},
            ["processorSettings.'x' is an object", "processorSettings.'y' is a list"],
        ),
        (
            "claraaetitle",
            {"aeTitle": "", "processorSettings": {"timeout": "soon", "priority": "asap", "groupBy": "x", "foo": "1"}},
            ["aeTitle", "timeout", "priority", "groupBy", "foo", "pipeline"],
        ),
        ("pipeline", {}, ["name is missing", "command is missing"]),
        ("pipeline", {**PIPELINE, "command": "rm -rf /"}, ["command is a text, not a list"]),
        ("pipeline", {**PIPELINE, "command": [""]}, ["command is missing"]),
        ("pipeline", {**PIPELINE, "command": ["a", ["b"]]}, ["command[1] is a list"]),
        ("pipeline", {**PIPELINE, "command": ["a", "b\0c"]}, ["command[1]"]),
        ("pipeline", {**PIPELINE, "command": ["a" * 100_001]}, ["command is too long"]),
        ("pipeline", {**PIPELINE, "timeoutSeconds": 0}, ["timeoutSeconds '0' is too small"]),
        ("pipeline", {**PIPELINE, "user": "root; id"}, ["is no account name"]),
        ("pipeline", {**PIPELINE, "exports": ["dicomweb:ftp://x"]}, ["exports[0]"]),
        ("pipeline", {**PIPELINE, "pipelineId": "-not ours"}, ["pipelineId '-not ours' is no ID"]),
    ],
)
def test_invalid(rest: httpx.Client, kind: str, entity: dict[str, Any], errors: list[str]) -> None:
    """400 with the original's title; every error is in the detail, each on its own beside it, and nothing is made."""
    told = problem(rest.post(f"/api/config/{kind}", json=entity), 400)
    assert told["title"] == "Validation error."
    for error in errors:
        assert error in told["detail"]
        assert any(error in one for one in told["errors"])
    assert len(told["errors"]) >= len(errors)
    assert rest.get(f"/api/config/{kind}").json() == []


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "empty"),
        (b"{", 400, "JSON"),
        (b'{"aeTitle": "A", "hostIp": \xff}', 400, "JSON"),
        (b'"text"', 400, "is a text, not an object"),
        (b"[]", 400, "is a list, not an object"),
        (b"null", 400, "not an object"),
        (b"[" * 100_000 + b"]" * 100_000, 400, "nested too deep"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, "nested too deep"),
        (b'{"aeTitle": "A", "AETITLE": "B", "hostIp": "h"}', 400, "'aeTitle' is given more than once"),
        (b'{"aeTitle": "A", "hostIp": "\\ud800"}', 400, "JSON"),
        (b'{"aeTitle": ' + b"9" * 5000 + b', "hostIp": "h"}', 400, ""),
    ],
)
def test_malformed(rest: httpx.Client, body: bytes, status: int, words: str) -> None:
    """Bodies that are no JSON, no object, or ambiguous are told so."""
    headers = {"content-type": "application/json"}
    told = problem(rest.post("/api/config/sourceaetitle", content=body, headers=headers), status)
    assert words in told["detail"]
    assert rest.get("/api/config/sourceaetitle").json() == []


def test_replace(rest: httpx.Client) -> None:
    """PUT changes all but the key, needs it in the path only, and is as strict as POST."""
    rest.post("/api/config/destinationaetitle", json=DESTINATION)
    changed = rest.put("/api/config/destinationaetitle/mypacs", json={"aeTitle": "B", "hostIp": "h", "port": "2"})
    assert changed.json() == {"name": "MYPACS", "aeTitle": "B", "hostIp": "h", "port": 2}
    told = problem(rest.put("/api/config/destinationaetitle/MYPACS", json={**DESTINATION, "name": "Other"}), 400)
    assert "a key cannot be changed" in told["detail"]
    told = problem(rest.put("/api/config/destinationaetitle/MYPACS", json={}), 400)
    assert len(told["errors"]) == 3
    assert rest.get("/api/config/destinationaetitle/MYPACS").json() == changed.json()


def test_ae_title_is_found_by_name_else_by_ae_title(rest: httpx.Client) -> None:
    settings = {"pipeline-a": "p"}
    rest.post("/api/config/claraaetitle", json={"name": "one", "aeTitle": "TWO", "processorSettings": settings})
    rest.post("/api/config/claraaetitle", json={"name": "TWO", "aeTitle": "THREE", "processorSettings": settings})
    assert rest.get("/api/config/claraaetitle/TWO").json()["aeTitle"] == "THREE"
    assert rest.get("/api/config/claraaetitle/THREE").json()["name"] == "TWO"
    assert rest.get("/api/config/claraaetitle/one").json()["aeTitle"] == "TWO"
    told = problem(rest.post("/api/config/claraaetitle", json={**AE_TITLE, "aeTitle": "THREE"}), 400)
    assert "aeTitle 'THREE' is taken already" in told["detail"]


def test_pipeline_is_found_by_id_else_by_name(rest: httpx.Client) -> None:
    made = rest.post("/api/config/pipeline", json=PIPELINE).json()
    assert rest.get("/api/config/pipeline/covid").json() == made
    assert rest.get(f"/api/config/pipeline/{made['pipelineId'].upper()}").json() == made


def test_a_change_holds_before_it_is_answered(running: Surroundings, owners: Owners) -> None:
    """The access file says it when the answer comes, and the owners have been told."""
    access = AccessFile(running.access)
    body = {
        **AE_TITLE,
        "ignoredSopClasses": ["1.2.3"],
        "processorSettings": {"pipeline-a": "p", "groupBy": "0010,0020"},
    }
    running.rest.post("/api/config/claraaetitle", json=body)
    rule = AeTitleRule(ae_title="COVIDAET", ignored_sop_classes=frozenset({"1.2.3"}), tags=("00100020",))
    assert access.current().ae_titles == (rule,)
    running.rest.post("/api/config/sourceaetitle", json=SOURCE)
    assert access.current().sources == (SourceRule(ae_title="MYPACS", host_ip="10.20.30.1"),)
    running.rest.delete("/api/config/claraaetitle/COVIDAET")
    assert [rule.accepting for rule in access.current().ae_titles] == [False], "kept for what is under way"
    running.rest.delete("/api/config/sourceaetitle/MYPACS")
    assert access.current().sources == ()
    assert owners.take() == [messages.AeTitlesChanged(), messages.AeTitlesChanged()]
    running.rest.post("/api/config/pipeline", json=PIPELINE)
    assert owners.take() == [messages.PipelinesChanged()]


def test_deleted_ae_title_is_revived(running: Surroundings) -> None:
    """One rule for one AE title, whatever was deleted and created under which name."""
    access, rest = AccessFile(running.access), running.rest
    settings = {"pipeline-a": "p"}

    def rules() -> dict[str, bool]:
        found = access.current().ae_titles
        assert len({rule.ae_title for rule in found}) == len(found)
        return {rule.ae_title: rule.accepting for rule in found}

    for name, title in (("N", "X"), ("N", "X"), ("M", "X"), ("M", "Y")):
        made = rest.post(
            "/api/config/claraaetitle", json={"name": name, "aeTitle": title, "processorSettings": settings}
        )
        assert made.status_code == 201, made.text
        assert rules()[title] is True
        assert rest.delete(f"/api/config/claraaetitle/{name}").status_code == 200
        assert rules()[title] is False
    assert rules() == {"X": False, "Y": False}, "X keeps its rule although its name went on to Y"
    assert rest.get("/api/config/claraaetitle").json() == []


def test_replaced_ae_title_leaves_its_old_rule(running: Surroundings) -> None:
    """A PUT that changes the AE title refuses the old one, but lets what is under way end by its rules."""
    access, rest = AccessFile(running.access), running.rest
    rest.post("/api/config/claraaetitle", json={**AE_TITLE, "name": "N", "aeTitle": "OLD"})
    assert rest.put("/api/config/claraaetitle/N", json={**AE_TITLE, "name": "N", "aeTitle": "NEW"}).status_code == 200
    assert {rule.ae_title: rule.accepting for rule in access.current().ae_titles} == {"OLD": False, "NEW": True}
    rest.put("/api/config/claraaetitle/N", json={**AE_TITLE, "name": "N", "aeTitle": "OLD"})
    assert {rule.ae_title: rule.accepting for rule in access.current().ae_titles} == {"OLD": True, "NEW": False}


def test_concurrent_changes(running: Surroundings) -> None:
    """Of many at once none is lost, one of each wins, and the access file has all of them."""
    titles = [f"AE{number}" for number in range(12)]

    def create(title: str) -> int:
        body = {"aeTitle": title, "hostIp": "h"}
        return httpx.post(f"{running.rest.base_url}/api/config/sourceaetitle", json=body, timeout=30.0).status_code

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        codes = list(pool.map(create, titles * 3))
    assert sorted(codes) == [201] * 12 + [400] * 24
    assert {rule.ae_title for rule in AccessFile(running.access).current().sources} == set(titles)
    assert {entity["aeTitle"] for entity in running.rest.get("/api/config/sourceaetitle").json()} == set(titles)


def test_answer_is_json_of_the_documented_kind(rest: httpx.Client) -> None:
    answer = rest.post("/api/config/sourceaetitle", json=SOURCE)
    assert answer.headers["content-type"].startswith("application/json")
    assert json.loads(answer.content) == SOURCE
