"""A ledger that does not answer the submitter: what was under way waits in memory, is saved later, and goes on."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol import messages
from protocol.errors import UnavailableError
from protocol.ledger import Run
from protocol.states import JobState, RunState
from tests.actors.platform.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


def test_jobs_go_on_when_the_ledger_answers_again(world: World) -> None:
    pipeline = world.shell("true")
    faulted = world.job(world.group(), "no pipeline")
    submitter = world.launcher.start("submitter")
    world.launcher.start("platform")
    world.tell_jobs(faulted)
    world.wait_submission(faulted, JobState.FAULTED)
    jobs = [world.job(world.group(), pipeline) for _ in range(5)]

    holder = sqlite3.connect(world.launcher.directory / "ledger.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    world.tell_jobs(*jobs, jobs[0])
    submitter.wait_for_log("ledger_away")
    world.tell_jobs(*jobs)
    with pytest.raises(UnavailableError):
        world.ask_submitter(messages.DiscardJobs(job_ids=(faulted,)))
    beats = len(submitter.told)
    submitter.wait_for(lambda: len(submitter.told) > beats + 2, "heartbeats")
    holder.close()

    for job in jobs:
        world.wait_submission(job, JobState.COMPLETED)
        world.wait_run(job, RunState.SUCCEEDED)
    submitter.wait_for_log("ledger_answers_again")
    assert Run.select().count() == len(jobs)
    assert all(world.submission(job).steps[0][0] == JobState.QUEUED for job in jobs)
    assert world.ask_submitter(messages.DiscardJobs(job_ids=(faulted,))) == messages.Done(affected=1)
