"""A platform that is away, comes back, answers nonsense or too late: tries, faults, and what goes on by itself.

The submitter lives in this process, with a patience that tests can wait for.
"""

import contextlib
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import peewee as pw
import pytest

from actors.submitter import progress
from actors.submitter.payload import files
from actors.submitter.submitter import Submitter
from protocol import messages
from protocol.birth import Birth
from protocol.channels import PLATFORM_COMMANDS
from protocol.ledger import Job, Run, Submission
from protocol.platforms.base import PlatformJob
from protocol.spool import walk_files
from protocol.states import JobState, RunState
from tests.actors.platform.world import World


class QuickSubmitter(Submitter):
    """Loses patience soon."""

    sweep_seconds = 0.2
    probe_seconds = 0.2
    patience_seconds = 0.3


class Here:
    """A submitter whose loop is turned by the test."""

    def __init__(self, world: World) -> None:
        self._theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        birth = Birth(
            name="submitter",
            runtime=str(world.launcher.runtime),
            lifeline=ours.detach(),
            alive=-1,
            board=world.launcher.board.fd,
        )
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        self.actor = QuickSubmitter(birth, world.launcher.settings)
        self.actor.open()
        # The tables are bound to one ledger in a process.
        world.ledger.close()
        world.ledger = self.actor._ledger
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def turn_until(self, condition: Callable[[], object], what: str, turns: int = 1500) -> None:
        """Turn until something holds; a turn lasts at most 20 ms, so half a minute."""
        for _ in range(turns):
            if condition():
                return
            self.actor.turn(0.02)
        raise AssertionError(f"turned in vain: {what}")

    def until(self, job_id: str, state: JobState) -> Submission:
        """Turn until a job is in a state."""

        def found() -> Submission | None:
            row: Submission | None = Submission.get_or_none(Submission.job_id == job_id, Submission.state == state)
            return row

        self.turn_until(found, f"{state} of {job_id}, which is {Submission.get_or_none(Submission.job_id == job_id)}")
        row = found()
        assert row is not None
        return row

    def close(self) -> None:
        self.actor.stop()
        self.actor.bus.close()
        self._theirs.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, "DicomAdapter.services.platform.maxRetries=2") as world:
        yield world


@pytest.fixture
def here(world: World, caplog: pytest.LogCaptureFixture) -> Iterator[Here]:
    caplog.set_level(logging.INFO)
    here = Here(world)
    with contextlib.closing(here):
        yield here


def faulted() -> int:
    return int(Submission.select().where(Submission.state == JobState.FAULTED).count())


def test_an_absent_platform_costs_all_tries_and_its_return_starts_them_again(
    world: World, here: Here, caplog: pytest.LogCaptureFixture
) -> None:
    """maxRetries tries beyond the first, Faulted with its reason; nobody has to do anything afterwards."""
    group_id, pipeline = world.group(3), world.shell("true")
    jobs = [world.job(group_id, pipeline) for _ in range(7)]
    for job_id in jobs:
        row = here.until(job_id, JobState.FAULTED)
        assert (row.tries, row.unreachable) == (3, True)
        assert "the platform did not answer" in row.last_error
        states = [state for state, _ in row.steps]
        assert states == ["Queued", *["Creating", "Queued"] * 2, "Creating", "Faulted"]
    world.launcher.start("platform")
    for job_id in jobs:
        row = here.until(job_id, JobState.COMPLETED)
        assert (row.unreachable, row.last_error) == (False, "")
        world.wait_run(job_id, RunState.SUCCEEDED)
    batches = [record.fields["jobs"] for record in caplog.records if record.message == "platform_answers_again"]  # type: ignore[attr-defined]
    assert batches[0] == 2
    assert max(batches) > 2, "few first, then more"


def test_a_person_need_not_wait_for_the_probe(world: World, here: Here) -> None:
    job_id = world.job(world.group(3), world.shell("true"))
    here.until(job_id, JobState.FAULTED)
    world.launcher.start("platform")
    assert here.actor.handle_retry_jobs(messages.RetryJobs(job_ids=(job_id,))) == messages.Done(affected=1)
    here.until(job_id, JobState.COMPLETED)


def test_a_hanging_platform_holds_nobody_up_and_is_not_asked_for_ever(world: World, here: Here) -> None:
    """Alive, connected, and silent: the same as away."""
    platform = world.launcher.start("platform")
    platform.suspend()
    job_id = world.job(world.group(3), world.shell("true"))
    row = here.until(job_id, JobState.FAULTED)
    assert row.unreachable
    platform.resume()
    here.until(job_id, JobState.COMPLETED)
    world.wait_run(job_id, RunState.SUCCEEDED)


def test_a_refusal_that_may_pass_is_no_refusal(world: World, here: Here) -> None:
    """A platform that says not now is asked again within the step."""
    server = world.bus.server(PLATFORM_COMMANDS, "platform")
    job_id = world.job(world.group(1), "p")
    asked: list[messages.Message] = []

    def serve() -> bool:
        command = server.receive()
        if command is not None:
            asked.append(command.message)
            command.answer(messages.Refused(reason="no space now", transient=True))
        return faulted() == 1

    here.turn_until(serve, "the fault")
    row = Submission.get(Submission.job_id == job_id)
    assert (row.unreachable, row.last_error) == (True, "no space now")
    assert len(asked) > 3


def test_an_unexpected_answer_is_one_jobs_trouble(world: World, here: Here) -> None:
    """A platform that answers nonsense: a failed step with its reason, and the submitter stays up."""
    server = world.bus.server(PLATFORM_COMMANDS, "platform")
    job_id = world.job(world.group(1), "p")

    def serve() -> bool:
        command = server.receive()
        if command is not None:
            command.answer(messages.Done())
        return faulted() == 1

    here.turn_until(serve, "the fault")
    row = Submission.get(Submission.job_id == job_id)
    assert (row.tries, row.unreachable) == (3, False)


def test_priority_decides_who_gets_a_place(world: World, here: Here) -> None:
    """More jobs than places: the urgent ones are created first, whenever they came."""
    group_id, pipeline = world.group(1), world.shell("true")
    with world.ledger.transaction():
        normal = [world.job(group_id, pipeline) for _ in range(20)]
        urgent = [world.job(group_id, pipeline, "immediate") for _ in range(8)]
    here.actor.handle_jobs_created(messages.JobsCreated(job_ids=(*normal, *urgent)))
    here.actor.turn(0)
    begun = {row.job_id for row in Submission.select().where(Submission.state == JobState.CREATING)}
    assert begun == set(urgent)
    assert here.actor.busy_with() == "8 submitting, 20 waiting"


def test_an_upload_goes_on_where_it_was_and_repeats_harmlessly(world: World, here: Here, tmp_path: Path) -> None:
    """Links that are there stay; what is known to be uploaded is not linked again; a foreign file is replaced."""
    group_id = world.group(600, size=4)
    job = Job.get(Job.job_id == world.job(group_id, "p"))
    payload = tmp_path / "spool" / "platform" / "p"
    payload.mkdir()
    first, second = files(job, world.spool)
    on_platform = PlatformJob(job_id=job.job_id, platform_job_id="r", payload_id="p", payload_directory=str(payload))
    platform = here.actor._platform
    (payload / Path(first[0].name).parent).mkdir(parents=True)
    (payload / first[0].name).write_bytes(b"of another size")
    platform.upload(on_platform, first, again=False)
    platform.upload(on_platform, [*first, *second], again=True)
    for file in (*first, *second):
        assert (payload / file.name).samefile(file.path)


def test_where_no_link_can_be_made_files_are_copied_once(world: World, here: Here) -> None:
    """A payload on another file system: whole under their names, or not there."""
    (page,) = files(Job.get(Job.job_id == world.job(world.group(3), "p")), world.spool)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        if os.stat(other).st_dev == world.spool.root.stat().st_dev:
            pytest.skip("there is no second file system")
        on_platform = PlatformJob(job_id="j", platform_job_id="r", payload_id="p", payload_directory=other)
        here.actor._platform.upload(on_platform, page, again=True)
        before = [Path(other, file.name).stat().st_ino for file in page]
        here.actor._platform.upload(on_platform, page, again=True)
        assert [Path(other, file.name).stat().st_ino for file in page] == before
        for file in page:
            assert Path(other, file.name).read_bytes() == Path(file.path).read_bytes()
        assert len(list(walk_files(Path(other)))) == 3


def ended(world: World, count: int) -> list[str]:
    """Jobs that were submitted, and whose runs failed and keep their input."""
    job_ids = [world.job(world.group(1), "p") for _ in range(count)]
    for job_id in job_ids:
        own = {"job_id": job_id, "created_ns": 1}
        Submission.create(state=JobState.COMPLETED, platform_state=RunState.FAILED, updated_ns=1, **own)
        run = {"run_id": job_id, "payload_id": job_id, "name": "n", "pipeline_id": "p", "priority": "normal"}
        Run.create(state=RunState.FAILED, keeps_input=True, ended_ns=1, **run, **own)
    return job_ids


def states(job_ids: list[str]) -> set[str]:
    return {row.platform_state for row in Submission.select().where(Submission.job_id.in_(job_ids))}


def test_failed_jobs_and_an_absent_platform(world: World, here: Here) -> None:
    """Who wants them run again is told, and they are as they were."""
    job_ids = ended(world, 3)
    answer = here.actor.handle_retry_jobs(messages.RetryJobs(failed=True))
    assert isinstance(answer, Future)
    here.turn_until(answer.done, "an answer")
    refused = answer.result()
    assert isinstance(refused, messages.Refused)
    assert (refused.transient, "did not answer" in refused.reason) == (True, True)
    here.turn_until(lambda: states(job_ids) == {"Failed"}, "the state that they have")


def test_failed_jobs_and_a_ledger_that_goes_away(world: World, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two pages of them: nobody is asked to do anything, and they are as they were."""
    job_ids = ended(world, 3)
    monkeypatch.setattr(progress, "PAGE_ROWS", 1)
    transaction, begun = here.actor._ledger.transaction, list[None]()

    @contextlib.contextmanager
    def second_fails() -> Iterator[None]:
        begun.append(None)
        if len(begun) == 2:
            raise pw.OperationalError("away")
        with transaction():
            yield

    monkeypatch.setattr(here.actor._ledger, "transaction", second_fails)
    refused = here.actor.handle_retry_jobs(messages.RetryJobs(failed=True))
    assert isinstance(refused, messages.Refused)
    assert (refused.transient, "Pending" in states(job_ids)) == (True, True)
    here.turn_until(lambda: states(job_ids) == {"Failed"}, "the state that they have")
