"""What a person decides by the command line never affects more than was meant, and says what it affected."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway import Gateway
from tests.peers import storescu
from tests.samples import make_study
from tests.test_cli import dicom_adapter

NOBODY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """With a faulted job of each of two AE titles."""
    directory = tmp_path_factory.mktemp("decisions")
    with Gateway(directory) as running:
        running.add_source("MODALITY")
        for title in ("ONE", "TWO"):
            running.add_aetitle(title, pipeline_none=NOBODY)
            study = make_study(directory / title, f"PAT-{title}", 1, rows=64)
            assert storescu(running.port, study.directory, called=title, calling="MODALITY").successes == 1
        running.wait_for(lambda: len(running.jobs(state="Faulted")) == 2, 30.0, "two faulted jobs")
        yield running


def faulted(gateway: Gateway) -> dict[str, str]:
    return {job["aeTitle"]: job["jobId"] for job in json.loads(gateway.cli("jobs", "list", "--json").stdout)}


@pytest.mark.parametrize(
    "words",
    [
        ("jobs", "discard", "--aetitle", "", "--since", "2024-01-01"),
        ("jobs", "discard", "--pipeline=", "--until=2200-01-01"),
        ("jobs", "discard", "--all", "--aetitle="),
        ("jobs", "discard", "--since=", "-a", "ONE"),
        ("jobs", "discard", ""),
        ("jobs", "discard", "."),
        ("jobs", "discard", "--platform", "Succeeded"),
        ("jobs", "discard", "--platform=", "--all"),
        ("jobs", "discard", "--platform", "Succeeded", "some-job"),
        ("jobs", "list", "--state", " "),
        ("jobs", "show", ""),
        ("exports", "cancel", "--all", "--destination", ""),
        ("--url", "", "jobs", "discard", "--all"),
        ("--runtime", " ", "jobs", "discard", "--all"),
        ("restart", "extractor", "--timeout", "0"),
    ],
    ids=" ".join,
)
def test_what_is_empty_is_a_mistake(gateway: Gateway, words: tuple[str, ...]) -> None:
    """Such as a variable that is not set."""
    ended = gateway.cli(*words, check=False)
    assert ended.returncode == 64, ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(gateway.jobs(state="Faulted")) == 2


@pytest.mark.parametrize("moment", ["1970-01-01T00:00:00Z", "2262-12-31", "2300-01-01", "9999-12-30", "1600-01-01"])
def test_times_that_a_ledger_cannot_hold(gateway: Gateway, moment: str) -> None:
    before = gateway.pids("submitter")
    for option in ("--until", "--since"):
        ended = gateway.cli("jobs", "discard", option, moment, check=False)
        assert (ended.returncode, "from 1971 to 2261" in ended.stderr) == (1, True), ended.stderr
    assert gateway.pids("submitter") == before
    assert len(gateway.jobs(state="Faulted")) == 2


def test_another_gateway_is_asked_by_its_runtime_directory(gateway: Gateway, tmp_path: Path) -> None:
    """And not the one of the variable, or of the default address."""
    listed = dicom_adapter(
        "--runtime", str(gateway.runtime), "jobs", "list", "--json", DICOM_ADAPTER_URL="http://[::1]:1"
    )
    assert {job["aeTitle"] for job in json.loads(listed.stdout)} == {"ONE", "TWO"}
    nobody = gateway.cli("--runtime", str(tmp_path), "jobs", "discard", "--all", check=False)
    assert (nobody.returncode, str(tmp_path) in nobody.stderr) == (69, True)
    assert len(gateway.jobs(state="Faulted")) == 2


def test_a_restart_does_not_go_by_an_address() -> None:
    """It would restart what runs here."""
    ended = dicom_adapter("--url", "http://gateway.example:5000", "restart", "extractor")
    assert (ended.returncode, "--runtime" in ended.stderr) == (64, True)


@pytest.mark.parametrize("token", ["sécret", "two\nlines", "\x7f"])
def test_a_token_that_is_none(gateway: Gateway, token: str) -> None:
    ended = dicom_adapter("jobs", "list", "--url", gateway.url, DICOM_ADAPTER_TOKEN=token)
    assert (ended.returncode, "DICOM_ADAPTER_TOKEN" in ended.stderr, token in ended.stderr) == (64, True, False)


def test_pipelines_that_there_are_not(gateway: Gateway) -> None:
    """A name where its ID belongs; the same setting twice."""
    pipeline = gateway.add_pipeline("covid", ["true"])
    by_name = gateway.cli("create", "aetitle", "-a", "BYNAME", "pipeline-x=covid")
    assert f"its ID is {pipeline}" in by_name.stderr
    by_id = gateway.cli("create", "aetitle", "-n", "BY ID", "-a", "BYID", f"pipeline-x={pipeline.upper()}")
    assert by_id.stderr == ""
    twice = gateway.cli("create", "aetitle", "-a", "TWICE", "pipeline-x=1", "pipeline-x=2", check=False)
    assert (twice.returncode, "more than once" in twice.stderr) == (64, True)
    assert gateway.cli("delete", "aetitle", "BY ID").stdout == "deleted aetitle BY ID, AE title BYID\n"


def test_a_pipeline_in_upper_case_is_the_same(gateway: Gateway, tmp_path: Path) -> None:
    gateway.add_aetitle("UPPER", pipeline_x=gateway.add_pipeline("upper", ["true"]).upper())
    study = make_study(tmp_path, "PAT-U", 1, rows=64)
    assert storescu(gateway.port, study.directory, called="UPPER", calling="MODALITY").successes == 1
    gateway.wait_for(lambda: gateway.jobs(aeTitle="UPPER", platformState="Succeeded"), 30.0, "its job's end")


def test_the_others_are_done_where_one_cannot_be(gateway: Gateway) -> None:
    """It is told which; one that is named twice is one."""
    jobs = faulted(gateway)
    ended = gateway.cli("jobs", "discard", jobs["ONE"], "bogus", jobs["TWO"], jobs["ONE"], check=False)
    assert (ended.returncode, ended.stdout) == (1, "discard: 2 jobs\n")
    assert "bogus" in ended.stderr
    assert "1 of 3" in ended.stderr
    assert {job["state"] for job in gateway.jobs() if job["aeTitle"] in jobs} >= {"Discarded"}
    nothing = gateway.cli("jobs", "discard", "--aetitle", "NOSUCH")
    assert (nothing.stdout, "nothing matches" in nothing.stderr) == ("discard: 0 jobs\n", True)
