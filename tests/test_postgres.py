"""The ledger on a real PostgreSQL: what the tests of SQLite show holds there too, and a server may go away."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import peewee as pw
import pytest

from protocol.ledger import Job, Ledger
from tests.actors.platform.test_freeing import (  # noqa: F401 - they run here with this module's fixtures
    runs,
    test_only_what_every_destination_has,
    test_the_jobs_that_are_meant,
    test_what_is_discarded,
    test_what_is_too_old,
)
from tests.actors.platform.test_rerun import test_inputs_are_given_up  # noqa: F401
from tests.actors.processor.test_processor import (  # noqa: F401 - they run here with this module's fixtures
    test_a_repeat_after_the_close_makes_no_job_and_anything_new_the_next_revision,
    test_of_two_versions_the_earlier_or_the_later_stays,
    test_quarantined_instances_are_released_or_discarded,
    test_two_ae_titles_make_four_and_four_jobs,
)
from tests.actors.processor.test_recovery import (  # noqa: F401
    test_finished_shards_are_sealed_and_reclaimed_groups_move_to_history,
    test_killed_between_any_two_steps_it_makes_one_job,
)
from tests.actors.processor.world import World
from tests.actors.test_forgetting import (  # noqa: F401
    settings,
    test_a_submission_outlives_its_job,
    test_requests,
    test_what_a_person_gave_up,
    test_what_matters_still,
)
from tests.gateway import Gateway
from tests.peers import storescu
from tests.postgres import Postgres
from tests.protocol.test_ledger import (  # noqa: F401
    test_a_transaction_is_whole_or_not_at_all,
    test_rows_come_in_pages_in_the_order_of_their_key,
    test_tuples_are_plain,
)
from tests.protocol.test_migration_steps import test_a_ledger_of_before_becomes_one_of_today  # noqa: F401
from tests.samples import make_study
from tests.test_main_line import assert_payload

OBJECTS = 60


def test_a_lost_connection_is_made_anew(server: Postgres) -> None:
    """In whichever thread it was lost, also where nobody closes it."""
    ledger = Ledger(server.new_database())
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(Job.select().count).result() == 0
        server.stop()
        server.start()
        with contextlib.suppress(pw.OperationalError):
            thread.submit(Job.select().count).result()
        assert thread.submit(Job.select().count).result() == 0
        thread.submit(ledger.close).result()
    ledger.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """One server for all tests; each has a database of its own."""
    with Postgres() as running:
        yield running


@pytest.fixture
def ledger(server: Postgres) -> Iterator[Ledger]:
    made = Ledger(server.new_database())
    yield made
    made.close()


@pytest.fixture
def ledger_url(server: Postgres) -> str:
    return server.new_database()


@pytest.fixture
def world(tmp_path: Path, server: Postgres) -> Iterator[World]:
    with World(tmp_path, f"ConnectionStrings.DicomAdapterDatabase={server.new_database()}") as made:
        yield made


@pytest.fixture
def on_postgres(new_gateway: Callable[..., Gateway], server: Postgres) -> Gateway:
    gateway = new_gateway(database=server.new_database())
    gateway.start()
    gateway.add_source("MODALITY")
    return gateway


def test_the_main_line(on_postgres: Gateway, tmp_path: Path, keeping_pipeline: list[str]) -> None:
    """Two jobs, their payloads, and what people ask for; all of it reclaimed, and still there after a restart."""
    gateway = on_postgres
    first, second = (gateway.add_pipeline(name, keeping_pipeline) for name in ("first", "second"))
    gateway.add_aetitle("POSTGRES", pipeline_first=first, pipeline_second=second)
    study = make_study(tmp_path / "study", "PAT-P", OBJECTS, rows=64, modality="MR", series=2)
    sent = storescu(gateway.port, study.directory, called="POSTGRES", calling="MODALITY")
    assert sent.successes == OBJECTS
    for job in gateway.wait_jobs(2):
        assert_payload(tmp_path / "kept" / job["jobId"], study, called="POSTGRES", calling="MODALITY")
        assert job["jobName"] in gateway.cli("jobs", "show", job["jobId"]).stdout
    assert "pipeline ended" in gateway.cli("trace", study.uid).stdout

    gateway.stop()
    gateway.start()
    assert len(gateway.wait_jobs(2)) == 2
    assert [title["aeTitle"] for title in gateway.rest.get("/api/config/claraaetitle").json()] == ["POSTGRES"]
    assert gateway.cli("delete", "aetitle", "POSTGRES").returncode == 0
    assert not gateway.ledger.exists()
    gateway.stop()


def test_a_server_that_goes_away_costs_nothing(on_postgres: Gateway, server: Postgres, tmp_path: Path) -> None:
    """It stops in the middle of a study: receiving goes on, and all of it is one job when the server is back."""
    gateway = on_postgres
    gateway.add_aetitle("AWAY", pipeline_none=gateway.add_pipeline("none", ["/bin/true"]))
    study = make_study(tmp_path / "study", "PAT-W", 30, rows=64, modality="MR")
    assert storescu(gateway.port, *study.part(0, 10), called="AWAY", calling="MODALITY").successes == 10
    server.stop()
    try:
        assert storescu(gateway.port, *study.part(10, 30), called="AWAY", calling="MODALITY").successes == 20
        gateway.wait_for(lambda: " ledger_away " in gateway.log_text(), 30, "ledger that is away")
        answer = gateway.rest.get("/api/config/claraaetitle")
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    finally:
        server.start()
    (job,) = gateway.wait_jobs(1)
    assert job["instances"] == 30
    assert all(actor.restarts == 0 for actor in gateway.status().actors)
    gateway.stop()
