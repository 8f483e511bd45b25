"""The exporter as a process: tasks of both results services, real peers, thresholds, retries, kills."""

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol import messages
from protocol.ledger import ExportTask
from protocol.states import DeliveryState, RunState, TaskState
from tests.actors.exporter.service import ResultsService
from tests.actors.exporter.world import PATIENCE_SECONDS, Pacs, World
from tests.actors.launcher import wait_until
from tests.peers import free_port, storescp
from tests.samples import Study, convert, dataset_bytes, make_study

MYPACS = '"MYPACS"'
GARBAGE = b"this is no DICOM" * 100


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("study"), "PAT-EXPORT", 8, rows=32)


@pytest.fixture
def files(study: Study) -> dict[str, Path]:
    """Files of a result, by their names."""
    return {f"series/{number}.dcm": path for number, path in enumerate(study.files.values())}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


@pytest.fixture
def service() -> Iterator[ResultsService]:
    with ResultsService() as service:
        yield service


@pytest.fixture
def served(tmp_path: Path, service: ResultsService) -> Iterator[World]:
    """With a results service of others."""
    with World(tmp_path, f"DicomAdapter.services.resultsServiceEndpoint={service.url}") as world:
        yield world


def wait_reports(service: ResultsService, task_id: str, last: str) -> list[str]:
    """What was told of a task, once its last report is this one."""
    return wait_until(
        lambda: told if (told := service.reported(task_id)) and told[-1] == last else [],
        f"{last} of a task",
        PATIENCE_SECONDS,
    )


def test_results_go_to_each_destination(world: World, files: dict[str, Path]) -> None:
    """One task a destination, names without case; what is plainly no DICOM is no part of it."""
    with Pacs() as one, Pacs() as other:
        world.destination("ONE", one.port)
        world.destination("OTHER", other.port)
        world.start()
        run = world.result({**files, "report.json": b"{}", "picture.png": b"png"}, ["one", "OTHER"])
        tasks = world.wait_tasks(run, TaskState.SUCCEEDED, 2)
        assert {(task.destination, task.files, task.retries, task.last_error) for task in tasks} == {
            ("ONE", 8, 0, ""),
            ("OTHER", 8, 0, ""),
        }
        for pacs in (one, other):
            assert set(pacs.stored.values()) == {1}
            assert len(pacs.stored) == 8
    for task in tasks:
        assert set(world.deliveries(task).values()) == {DeliveryState.DELIVERED}


def test_a_result_whose_message_was_lost_is_found(world: World, files: dict[str, Path]) -> None:
    with Pacs() as pacs:
        world.destination("MYPACS", pacs.port)
        run = world.result(files, ["MYPACS"])  # nobody listens yet
        world.start()
        world.wait_tasks(run, TaskState.SUCCEEDED)


def test_how_far_it_has_looked_is_told_when_the_tasks_are_on_record(world: World, files: dict[str, Path]) -> None:
    """What was looked at may be deleted: by then it has its tasks, also those that a locked ledger delayed."""
    run = world.result(files, ["NOWHERE"])
    made_ns = time.time_ns()
    with contextlib.closing(sqlite3.connect(world.launcher.directory / "ledger.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        exporter = world.start()
        exporter.wait_for_log("ledger_away")
        assert world.launcher.board.tasks_made_ns == 0
        holder.execute("ROLLBACK")
    wait_until(lambda: world.launcher.board.tasks_made_ns > made_ns, "a look at it")
    assert len(world.tasks(run)) == 1
    # And it goes on, with nothing that is new.
    reached_ns = world.launcher.board.tasks_made_ns
    wait_until(lambda: world.launcher.board.tasks_made_ns > reached_ns, "another look")


def test_several_transfer_syntaxes_to_storescp(served: World, service: ResultsService, tmp_path: Path) -> None:
    """The bytes come as they are."""
    names = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5"]
    sources = {}
    for number, syntax in enumerate(names):
        made = convert(make_study(tmp_path / f"s{number}", "PAT-SYNTAX", 2, rows=16), tmp_path / f"c{number}", syntax)
        sources |= {f"{number}/{uid}": path for uid, path in made.files.items()}
    with storescp(tmp_path / "pacs") as pacs:
        served.destination("MYPACS", pacs.port)
        served.start()
        run = served.result(sources)
        task_id = service.add(run.payload_id, list(sources), '["mypacs"]')
        assert wait_reports(service, task_id, "success") == ["success"]
    found = {dataset_bytes(path) for path in (tmp_path / "pacs").iterdir()}
    assert found == {dataset_bytes(path) for path in sources.values()}


def test_destinations_that_break_off(
    served: World, service: ResultsService, files: dict[str, Path], tmp_path: Path
) -> None:
    """Failure with a retry as often as configured, then without; the others of the same moment succeed."""
    options = ("--refuse", "--abort-during", "--abort-after")
    with contextlib.ExitStack() as stack:
        for option in options:
            bad = stack.enter_context(storescp(tmp_path / option, options=["+xa", option]))
            served.destination(option, bad.port)
        good = stack.enter_context(Pacs())
        served.destination("GOOD", good.port)
        served.start()
        run = served.result(files)
        broken = [service.add(run.payload_id, list(files), f'"{option}"') for option in options]
        to_good = service.add(run.payload_id, list(files), '"GOOD"')
        assert wait_reports(service, to_good, "success") == ["success"]
        assert set(good.stored.values()) == {1}
        for task_id in broken:
            assert wait_reports(service, task_id, "failure") == ["retry"] * 3 + ["failure"]


def test_files_that_cannot_be_had(served: World, service: ResultsService, files: dict[str, Path]) -> None:
    """Below the threshold the rest is sent, and that is a success; above it is a failure, without a retry."""
    with Pacs() as pacs:
        served.destination("MYPACS", pacs.port)
        served.start()
        run = served.result(files)
        some = [*files, *(f"missing-{number}.dcm" for number in range(8))]
        assert wait_reports(service, service.add(run.payload_id, some, MYPACS), "success") == ["success"]
        assert len(pacs.stored) == 8
        many = [*some, "../../../../../../etc/hostname"]
        assert wait_reports(service, service.add(run.payload_id, many, MYPACS), "failure") == ["failure"]
        unknown = service.add("not a payload", list(files), MYPACS)
        assert wait_reports(service, unknown, "failure") == ["failure"]
        failed = served.result(files, state=RunState.FAILED)
        assert wait_reports(service, service.add(failed.payload_id, list(files), MYPACS), "failure") == ["failure"]


def test_parameters_that_name_no_destination(served: World, service: ResultsService, files: dict[str, Path]) -> None:
    """Failure, without a retry; a destination that is known has its files all the same."""
    with Pacs() as pacs:
        served.destination("MYPACS", pacs.port)
        served.start()
        run = served.result(files)
        for parameters in ("", "null", "MYPACS", '"UNKNOWN"', "[]", '[""]', '{"a": 1}', "[1]", "[" * 5000):
            task_id = service.add(run.payload_id, list(files), parameters)
            assert wait_reports(service, task_id, "failure") == ["failure"], parameters
        assert not pacs.stored
        task_id = service.add(run.payload_id, list(files), '["MYPACS", "UNKNOWN"]')
        assert wait_reports(service, task_id, "failure") == ["failure"]
        assert len(pacs.stored) == 8


def test_the_threshold_and_what_travels_again(
    served: World, service: ResultsService, study: Study, files: dict[str, Path]
) -> None:
    """Half of the files fail: success. One more: failure with a retry, and then only what is missing travels."""
    uids = list(study.files)
    refused = set(uids[:4])
    with Pacs(lambda uid: 0xA700 if uid in refused else 0) as pacs:
        served.destination("MYPACS", pacs.port)
        served.start()
        run = served.result(files)
        half = service.add(run.payload_id, list(files), MYPACS)
        assert wait_reports(service, half, "success") == ["success"]
        assert ExportTask.get(ExportTask.task_id == half).last_error.startswith("4 of 8 files not delivered")

        refused.add(uids[4])
        pacs.stored.clear()
        more = service.add(run.payload_id, list(files), MYPACS)
        assert wait_reports(service, more, "failure") == ["retry"] * 3 + ["failure"]
        assert {uid: pacs.stored[uid] for uid in uids} == {uid: 4 if uid in refused else 1 for uid in uids}

        pacs.stored.clear()
        third = service.add(run.payload_id, list(files), MYPACS)
        wait_until(lambda: "retry" in service.reported(third), "its first failure", PATIENCE_SECONDS)
        refused.clear()
        assert wait_reports(service, third, "success")[-1] == "success"
        assert all(pacs.stored[uid] == 1 for uid in uids[5:])


def test_garbage_beside_what_is_good(served: World, service: ResultsService, files: dict[str, Path]) -> None:
    """What is no DICOM counts as failed, and keeps nothing else from going."""
    truncated = next(iter(files.values())).read_bytes()[:200]
    bad = {"garbage": GARBAGE, "empty.dcm": b"", "truncated.dcm": truncated}
    with Pacs() as pacs:
        served.destination("MYPACS", pacs.port)
        served.start()
        run = served.result({**files, **bad})
        task_id = service.add(run.payload_id, [*bad, *files], MYPACS)
        assert wait_reports(service, task_id, "success") == ["success"]
        assert len(pacs.stored) == 8


@pytest.mark.alone
def test_one_destination_is_dead(world: World, files: dict[str, Path]) -> None:
    """The other has everything at once; when the dead one lives, it has everything by itself."""
    port = free_port()
    with Pacs() as pacs:
        world.destination("ALIVE", pacs.port)
        world.destination("DEAD", port)
        world.start()
        runs = [world.result(files, ["DEAD", "ALIVE"]) for _ in range(20)]
        began = time.monotonic()

        def all_alive() -> bool:
            return (
                sum(task.destination == "ALIVE" and task.state == TaskState.SUCCEEDED for task in world.tasks()) == 20
            )

        wait_until(all_alive, "everything at the living destination", PATIENCE_SECONDS)
        seconds = time.monotonic() - began
        assert seconds < 20.0
        # A dead destination costs tasks their tries one after another, not all at once.
        assert sum(task.destination == "DEAD" and task.retries > 0 for task in world.tasks()) < 20
        with Pacs(port=port) as revived:
            assert world.ask(messages.RetryTasks(destination="DEAD")) == messages.Done(affected=20)
            for run in runs:
                world.wait_tasks(run, TaskState.SUCCEEDED, 2)
            assert set(revived.stored.values()) == {20}


def test_a_dead_destination_hides_no_task_of_another(
    served: World, service: ResultsService, files: dict[str, Path]
) -> None:
    """Neither those that name both, nor those that a results service lists behind what waits for the dead one."""
    with Pacs() as pacs:
        served.destination("ALIVE", pacs.port)
        served.destination("DEAD", free_port())
        served.start()
        run = served.result(files)
        for _ in range(12):
            service.add(run.payload_id, list(files), '"DEAD"')
        both = [service.add(run.payload_id, list(files), '["DEAD", "ALIVE"]') for _ in range(5)]
        alive = service.add(run.payload_id, list(files), '"ALIVE"')
        assert wait_reports(service, alive, "success") == ["success"]
        wait_until(lambda: set(pacs.stored.values()) == {6}, "everything at the living destination", 30.0)
        assert not any("success" in service.reported(task_id) for task_id in both)


def test_what_failed_goes_on_when_its_destination_answers(world: World, files: dict[str, Path], tmp_path: Path) -> None:
    """A person need not do anything about an outage."""
    port = free_port()
    world.launcher.change_settings(
        "DicomAdapter.dicom.scu.export.pollFrequencyMs=50", "DicomAdapter.dicom.scu.export.maximumRetries=0"
    )
    world.destination("MYPACS", port)
    world.start()
    run = world.result(files, ["MYPACS"])
    (task,) = world.wait_tasks(run, TaskState.FAILED)
    assert task.unreachable
    assert "8 of 8 files not delivered" in task.last_error
    with Pacs(port=port):
        world.wait_tasks(run, TaskState.SUCCEEDED)


@pytest.mark.parametrize(
    "point",
    [
        "exporter.tasks-recorded",
        "exporter.task-begun",
        "exporter.deliveries-planned",
        "exporter.answered",
        "exporter.deliveries-recorded",
        "exporter.task-judged",
        "exporter.reported",
    ],
)
def test_killed_at_each_step(
    served: World, service: ResultsService, files: dict[str, Path], study: Study, point: str
) -> None:
    """Nothing is lost, an instance is sent twice at most, and nothing is reported before it was acknowledged."""
    with Pacs() as pacs:
        served.destination("MYPACS", pacs.port)
        served.arm(point)
        exporter = served.start()
        run = served.result(files)
        task_id = service.add(run.payload_id, list(files), MYPACS)
        exporter.wait_ended()
        assert (served.points / f"{point}.{exporter.pid}").exists()
        if service.reported(task_id):
            assert len(pacs.datasets) == 8
        served.start()
        wait_reports(service, task_id, "success")
        assert pacs.datasets.keys() == study.files.keys()
        assert max(pacs.stored.values()) <= 2
        assert set(served.deliveries(ExportTask.get(ExportTask.task_id == task_id)).values()) == {
            DeliveryState.DELIVERED
        }


def test_the_results_service_is_away(served: World, service: ResultsService, files: dict[str, Path]) -> None:
    """It is told once, asked more and more seldom, and what was done meanwhile is reported afterwards."""
    with Pacs() as pacs:
        served.destination("MYPACS", pacs.port)
        exporter = served.start()
        run = served.result(files)
        service.broken = True
        exporter.wait_for_log("results_service_away")
        task_id = service.add(run.payload_id, list(files), MYPACS)
        before = service.polls
        wait_until(lambda: service.polls > before + 1, "some more polls")
        service.broken = False
        assert wait_reports(service, task_id, "success") == ["success"]
        exporter.wait_for_log("results_service_answers_again")
        assert exporter.log_text().count("results_service_away") == 1


def test_cancel_and_retry(world: World, files: dict[str, Path], study: Study) -> None:
    """What is canceled is not sent; what was refused for good is sent again when a person says so."""
    codes = dict.fromkeys(study.files, 0x0122)
    with Pacs(lambda uid: codes[uid]) as pacs:
        world.destination("MYPACS", pacs.port)
        world.start()
        run = world.result(files, ["MYPACS"])
        (task,) = world.wait_tasks(run, TaskState.FAILED)
        assert set(world.deliveries(task).values()) == {DeliveryState.REFUSED}
        assert set(pacs.stored.values()) == {1}
        codes = dict.fromkeys(study.files, 0)
        assert world.ask(messages.RetryTasks(task_ids=(task.task_id,))) == messages.Done(affected=1)
        world.wait_tasks(run, TaskState.SUCCEEDED)

        world.destination("DEAD", free_port())
        waiting = world.result(files, ["DEAD"])
        (task,) = wait_until(lambda: world.tasks(waiting), "its task")
        assert world.ask(messages.CancelTasks(task_ids=(task.task_id,))) == messages.Done(affected=1)
        assert world.wait_tasks(waiting, TaskState.CANCELED)
        answer = world.ask(messages.ProbeDestination(destination="mypacs"))
        assert isinstance(answer, messages.DestinationAnswered)


def test_agents_of_others_never_have_one_task_twice(world: World, files: dict[str, Path]) -> None:
    """Tasks that were registered for them are lent, and end as they say."""
    world.start()
    run = world.result(files)
    for number in range(6):
        command = messages.RegisterTask(
            task_id=f"00000000-0000-0000-0000-00000000000{number}",
            job_id=run.job_id,
            payload_id=run.payload_id,
            pipeline_id="",
            agent="OTHERS",
            parameters=json.dumps("x"),
            uris=tuple(files),
        )
        assert world.ask(command) == messages.Done(affected=1)
        assert world.ask(command) == messages.Done(affected=0)
    taken: list[str] = []
    for _ in range(4):
        answer = world.ask(messages.TakeTasks(agent="others", size=2))
        assert isinstance(answer, messages.TasksTaken)
        taken += answer.task_ids
    assert len(taken) == len(set(taken)) == 6
    assert world.ask(messages.FinishTask(task_id=taken[0], succeeded=True)) == messages.Done(affected=1)
    assert world.ask(messages.FinishTask(task_id=taken[0], succeeded=True)) == messages.Done(affected=0)
    world.ask(messages.FinishTask(task_id=taken[1], succeeded=False, retry_later=True))
    world.ask(messages.FinishTask(task_id=taken[2], succeeded=False))
    assert world.ask(messages.TakeTasks(agent="OTHERS", size=10)) == messages.TasksTaken(task_ids=(taken[1],))
    states = {task.task_id: task.state for task in world.tasks()}
    assert [states[task_id] for task_id in taken[:3]] == [TaskState.SUCCEEDED, TaskState.IN_PROGRESS, TaskState.FAILED]
