"""Rounds of a retrieval against servers that behave well and badly."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.retriever.round import resource_names
from actors.retriever.sources.base import AwayError, paced
from protocol.inference import AccessionStudies, FhirResource, HttpSource, PatientStudies, Selection
from tests.actors.retriever.web import SECRET, Rounds, WebServer, opened
from tests.http_peers import FhirServer
from tests.peers import free_port
from tests.samples import Study, dataset_bytes, make_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("study"), "PAT-ROUND", 6, rows=64, series=2)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("other"), "PAT-OTHER", 2, rows=64)


@pytest.fixture
def server(study: Study, other: Study) -> Iterator[WebServer]:
    yield from opened(study, other)


@pytest.fixture
def rounds(tmp_path: Path) -> Iterator[Rounds]:
    made = Rounds(tmp_path)
    yield made
    made.ledger.close()


def instances(study: Study) -> set[str]:
    return {f"dcm/{uid}.dcm" for uid in study.files}


def test_a_study_comes_in_one_go_byte_for_byte(rounds: Rounds, server: WebServer, study: Study) -> None:
    outcome = rounds.run(Selection(study_uid=study.uid), server)
    assert (outcome.missing, outcome.problems, outcome.away, outcome.broken_off) == ((), (), False, "")
    assert rounds.files() == instances(study) == {each.path for each in rounds.kept}
    assert server.retrieved() == [f"/dw/studies/{study.uid}"]
    for uid, path in study.files.items():
        assert dataset_bytes(rounds.spool.requests / "job" / f"dcm/{uid}.dcm") == dataset_bytes(path)


def test_only_what_is_missing_is_fetched_again(rounds: Rounds, server: WebServer, study: Study) -> None:
    """Also when a killed process had put nothing on record, and left something in transit."""
    rounds.run(Selection(study_uid=study.uid), server)
    gone = list(study.files)[2:4]
    for uid in gone:
        (rounds.spool.requests / "job" / f"dcm/{uid}.dcm").unlink()
    (rounds.spool.requests / "job" / "000001.part").write_bytes(b"x")
    server.retrieved()
    assert rounds.run(Selection(study_uid=study.uid), server).missing == ()
    assert sorted(path.rpartition("/")[2] for path in server.retrieved()) == sorted(gone)
    assert rounds.files() == instances(study) == {each.path for each in rounds.kept}
    assert rounds.run(Selection(study_uid=study.uid), server).missing == ()
    assert server.retrieved() == []


def test_a_full_disk_stops_it_before_the_next_file_and_it_goes_on_there(
    rounds: Rounds, server: WebServer, study: Study
) -> None:
    answers = iter([True] * 5)
    rounds.has_room = lambda: next(answers, False)
    outcome = rounds.run(Selection(study_uid=study.uid), server)
    assert "no space" in outcome.broken_off
    there = rounds.files()
    assert 0 < len(there) < 6
    server.retrieved()
    assert "no space" in rounds.run(Selection(study_uid=study.uid), server).broken_off
    assert server.retrieved() == []
    rounds.has_room = lambda: True
    assert rounds.run(Selection(study_uid=study.uid), server).missing == ()
    assert len(server.retrieved()) == 6 - len(there)


def test_a_server_that_ignores_the_key_brings_nobody_else_s_studies(
    rounds: Rounds, server: WebServer, study: Study
) -> None:
    server.ignores_keys = server.ignores_offset = True
    assert rounds.run(PatientStudies(patient_id="PAT-ROUND"), server).missing == ()
    assert rounds.files() == instances(study)
    outcome = rounds.run(AccessionStudies(accession_number="NOBODY"), server)
    assert outcome.missing == ("the studies of an accession number",)
    assert not outcome.away
    assert "PAT-" not in str(outcome)


def test_a_server_that_cannot_list_still_retrieves(rounds: Rounds, server: WebServer, study: Study) -> None:
    server.lists = False
    for _ in range(2):
        assert rounds.run(Selection(study_uid=study.uid), server).missing == ()
        assert rounds.files() == instances(study)


def test_what_was_not_asked_for_or_is_no_dicom_is_left_out_and_told(
    rounds: Rounds, server: WebServer, study: Study, other: Study
) -> None:
    foreign = next(iter(other.files.values())).read_bytes()
    server.extra_parts = [b"<html>oops</html>", foreign, b""]
    outcome = rounds.run(Selection(study_uid=study.uid), server)
    assert outcome.missing == ()
    assert rounds.files() == instances(study)
    assert any("no DICOM file" in problem for problem in outcome.problems)
    assert any("not asked for" in problem for problem in outcome.problems)


def test_a_single_object_without_multipart(rounds: Rounds, server: WebServer, study: Study) -> None:
    server.single = True
    uids = tuple(study.files)[:2]
    series = server.rows[0]["0020000E"]
    assert rounds.run(Selection(study_uid=study.uid, series_uid=series, sop_instance_uids=uids), server).missing == ()
    assert rounds.files() == {f"dcm/{uid}.dcm" for uid in uids}


ANSWERS = {401: "authType", 403: "authType", 404: "none", 500: "500", 302: "302"}
AWAY = (502, 503, 504, 429)


@pytest.mark.parametrize("status", [*ANSWERS, *AWAY])
def test_what_a_server_says(rounds: Rounds, server: WebServer, study: Study, status: int) -> None:
    server.status = status
    outcome = rounds.run(Selection(study_uid=study.uid), server)
    assert outcome.missing == (f"study {study.uid}",)
    assert outcome.away is (status in AWAY)
    assert any(ANSWERS.get(status, str(status)) in problem for problem in outcome.problems), outcome.problems
    assert SECRET not in str(outcome)


def test_a_page_for_people_is_no_answer(rounds: Rounds, server: WebServer, study: Study) -> None:
    server.html = True
    outcome = rounds.run(Selection(study_uid=study.uid), server)
    assert (outcome.missing, outcome.away) == ((f"study {study.uid}",), False)
    assert rounds.files() == set()


def test_a_server_that_breaks_off_is_away_as_long_as_it_brings_something(
    rounds: Rounds, server: WebServer, study: Study
) -> None:
    """Else it would be asked for ever for what it never brings."""
    server.breaks_after = sum(len(data) for data in server.files.values()) // 3
    outcome = rounds.run(Selection(study_uid=study.uid), server)
    assert (outcome.away, outcome.missing) == (True, (f"study {study.uid}",))
    assert 0 < len(rounds.files()) < 6
    assert not [name for name in rounds.files() if name.endswith(".part")]
    server.breaks_after = 10
    assert rounds.run(Selection(study_uid=study.uid), server).away is False
    server.breaks_after = None
    assert rounds.run(Selection(study_uid=study.uid), server).missing == ()


def test_one_that_cannot_be_reached_is_asked_once_a_round_and_the_next_one_serves(
    rounds: Rounds, server: WebServer, study: Study, other: Study
) -> None:
    nobody = HttpSource(interface="DICOMweb", uri=f"http://127.0.0.1:{free_port()}/dw")
    wanted = (Selection(study_uid=study.uid), Selection(study_uid=other.uid))
    outcome = rounds.run(wanted, nobody, server)
    assert (outcome.missing, outcome.away) == ((), True)
    assert sum("cannot be reached" in problem for problem in outcome.problems) == 1
    assert rounds.run(wanted, nobody).missing == (f"study {study.uid}", f"study {other.uid}")


def test_a_process_that_ends_stops_it_in_the_middle_of_a_file(rounds: Rounds, server: WebServer, study: Study) -> None:
    answers = iter([False] * 9)
    rounds.stopped = lambda: next(answers, True)
    assert "ends" in rounds.run(Selection(study_uid=study.uid), server).broken_off
    assert rounds.files() < instances(study)


def test_fhir_resources_are_what_was_asked_for(rounds: Rounds) -> None:
    patient = FhirResource(resource_type="Patient", resource_id="p")
    listed = {form: FhirResource(resource_type="List", resource_id="l", form=form) for form in ("json", "xml")}
    with FhirServer() as server:
        source = HttpSource(interface="FHIR", uri=f"{server.url}/base")
        server.add("Patient", "p")
        server.resources["List", "l", "json"] = b'{"resourceType": "OperationOutcome"}'
        server.resources["List", "l", "xml"] = (
            b'<!DOCTYPE x [<!ENTITY a "aa">]><List xmlns="http://hl7.org/fhir">&a;</List>'
        )
        outcome = rounds.run((patient, *listed.values()), source)
        assert outcome.missing == ("a FHIR List", "a FHIR List")
        assert any("another type" in problem for problem in outcome.problems)
        assert any("no FHIR xml" in problem for problem in outcome.problems)
        assert rounds.files() == {"ehr/patient-p.json"}
        server.add("List", "l")
        server.asked.clear()
        assert rounds.run((patient, *listed.values()), source).missing == ()
        assert [asked.path for asked in server.asked] == ["/base/List/l"] * 2
    assert rounds.files() == {"ehr/patient-p.json", "ehr/list-l.json", "ehr/list-l.xml"}


def test_resources_whose_names_come_out_equal_are_told_apart_in_the_same_way_each_time() -> None:
    wanted = [FhirResource(resource_type="Patient", resource_id=each) for each in ("A", "a", "A", "..a")]
    names = resource_names(wanted)
    assert list(names.values()) == ["patient-a.json", "patient-a-2.json", "patient-..a.json"]
    assert resource_names(wanted) == names


def test_a_body_that_trickles_is_given_up() -> None:
    with pytest.raises(AwayError, match="10 bytes"):
        list(paced(iter([b"x" * 10]), 0.0, 11))
    assert list(paced(iter([b"x" * 10, b"y" * 10]), 0.0, 10)) == [b"x" * 10, b"y" * 10]
