"""Runs outlive the platform actor, and never the gateway: kills, restarts and stops of real processes."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol import messages
from protocol.ledger import Run
from protocol.states import RunState
from tests.actors.launcher import RunningActor, wait_until
from tests.actors.platform.world import World

# Appends to a file that no run removes, then waits for another to appear.
COUNTED = "echo $JOB_ID >> {count}; touch begun; until [ -e {go} ]; do sleep 0.02; done; echo done > made"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, "DicomAdapter.services.platform.concurrentRuns=1") as world:
        yield world


class Counted:
    """A pipeline that counts its executions and ends when told to."""

    def __init__(self, world: World, directory: Path) -> None:
        self.count, self.go = directory / "count", directory / "go"
        self.pipeline = world.shell(COUNTED.replace("{count}", str(self.count)).replace("{go}", str(self.go)))
        self._world = world

    def start(self) -> str:
        job_id = self._world.start_run(self.pipeline)
        self._world.wait_begun(job_id)
        return job_id

    def release(self) -> None:
        self.go.touch()

    @property
    def executions(self) -> int:
        return len(self.count.read_text().split())


def shim_pid(world: World, job_id: str) -> int:
    return int((world.output(job_id).parent / "shim.lock").read_text())


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_killed_actor_attaches_again(world: World, tmp_path: Path) -> None:
    """The run goes on without it, and its end is registered once."""
    pipeline = Counted(world, tmp_path)
    world.launcher.start("platform")
    job_id = pipeline.start()
    world.launcher.actors[-1].kill()
    successor = world.launcher.start("platform")
    successor.wait_for_log("run_attached")
    assert world.run(job_id).state == RunState.RUNNING
    pipeline.release()
    run = world.wait_run(job_id)
    assert (run.state, run.tries, pipeline.executions) == (RunState.SUCCEEDED, 1, 1)
    assert (world.output(job_id) / "made").read_text() == "done\n"
    successor.wait_for_log("run_ended")  # it comes after the commit
    assert len([line for line in successor.lines if "run_ended" in line]) == 1


def test_a_run_that_ended_while_the_actor_was_away_is_registered(world: World, tmp_path: Path) -> None:
    pipeline = Counted(world, tmp_path)
    world.launcher.start("platform")
    job_id = pipeline.start()
    world.launcher.actors[-1].kill()
    pipeline.release()
    wait_until(lambda: not world.processes(), "the end of the shim")
    assert world.run(job_id).state == RunState.RUNNING
    world.launcher.start("platform")
    run = world.wait_run(job_id)
    assert (run.state, run.tries, pipeline.executions) == (RunState.SUCCEEDED, 1, 1)
    assert not (world.home(job_id) / "payload").exists()


def test_a_restart_of_the_actor_alone_leaves_runs_alone(world: World, tmp_path: Path) -> None:
    pipeline = Counted(world, tmp_path)
    actor = world.launcher.start("platform")
    job_id = pipeline.start()
    waiting = world.start_run(pipeline.pipeline)
    actor.tell(messages.Drain(seconds=5))
    assert actor.wait_ended() == 0
    assert world.processes()
    successor = world.launcher.start("platform")
    successor.wait_for_log("run_attached")
    pipeline.release()
    for job in (job_id, waiting):
        assert world.wait_run(job).tries == 1
    assert pipeline.executions == 2


def test_a_stop_of_the_gateway_ends_runs_and_the_next_start_repeats_them(world: World, tmp_path: Path) -> None:
    pipeline = Counted(world, tmp_path)
    actor = world.launcher.start("platform")
    job_id = pipeline.start()
    actor.tell(messages.Drain(seconds=5, gateway_stops=True))
    assert actor.wait_ended(6) == 0
    assert not world.processes()
    run = world.run(job_id)
    assert (run.state, run.tries) == (RunState.PENDING, 1)
    pipeline.release()
    world.launcher.start("platform")
    run = world.wait_run(job_id)
    assert (run.state, run.tries, run.error, pipeline.executions) == (RunState.SUCCEEDED, 2, "", 2)
    assert [entry.name for entry in (world.home(job_id) / "runs").iterdir()] == ["2"]


@pytest.mark.parametrize("dead_first", [False, True])
def test_nothing_outlives_a_supervisor_that_was_killed(world: World, tmp_path: Path, *, dead_first: bool) -> None:
    """Whether the actor notices, or was killed with it: the shim's pipe closes, and the run is repeated."""
    pipeline = Counted(world, tmp_path)
    actor = world.launcher.start("platform")
    job_id = pipeline.start()
    if dead_first:
        actor.kill()
    world.supervisor_dies()
    if not dead_first:
        actor.abandon()
        assert actor.wait_ended() == 0
    wait_until(lambda: not world.processes(), "the end of the run", 5)
    pipeline.release()
    world.launcher.start("platform")
    run = world.wait_run(job_id)
    assert (run.state, run.tries, pipeline.executions) == (RunState.SUCCEEDED, 2, 2)


def test_a_killed_shim_takes_its_command_along_and_the_run_is_repeated(world: World, tmp_path: Path) -> None:
    """What the command had started is found by its environment; after three such tries the run fails."""
    pipeline = Counted(world, tmp_path)
    actor = world.launcher.start("platform")
    job_id = pipeline.start()
    for attempt in (1, 2, 3):
        actor.wait_for_log("run_started", count=attempt)
        world.wait_begun(job_id)
        os.kill(shim_pid(world, job_id), signal.SIGKILL)
        actor.wait_for_log("run_ended", count=attempt)
    run = world.wait_run(job_id)
    assert run.state == RunState.FAILED
    assert run.error.startswith("interrupted 3 times without a result")
    assert not world.processes()
    assert [entry.name for entry in (world.home(job_id) / "runs").iterdir()] == ["3"]


def test_a_killed_fork_server_costs_no_run(world: World, tmp_path: Path) -> None:
    """What it had started goes on without it, and the next run is started by another one."""
    pipeline = Counted(world, tmp_path)
    actor = world.launcher.start("platform")
    job_id = pipeline.start()
    server = parent_of(shim_pid(world, job_id))
    assert server != actor.pid
    os.kill(server, signal.SIGKILL)
    pipeline.release()
    second = world.start_run(pipeline.pipeline)
    for job in (job_id, second):
        run = world.wait_run(job, RunState.SUCCEEDED)
        assert run.tries == 1
    assert pipeline.executions == 2


def test_a_fork_server_ends_with_a_killed_actor(world: World, tmp_path: Path) -> None:
    """Its shims go on, and belong to nobody."""
    pipeline = Counted(world, tmp_path)
    actor = world.launcher.start("platform")
    job_id = pipeline.start()
    server = parent_of(shim_pid(world, job_id))
    actor.kill()
    wait_until(lambda: not Path(f"/proc/{server}/fd").exists() or not os.listdir(f"/proc/{server}/fd"), "its end")
    assert shim_pid(world, job_id) in world.processes()


def test_a_kill_before_the_command_began_costs_no_try_that_counts(world: World, tmp_path: Path) -> None:
    """The actor dies again and again while it makes the input: the run is still executed, and once."""
    pipeline = Counted(world, tmp_path)
    pipeline.release()
    actor = world.launcher.start("platform")
    job_id = world.create_run(pipeline.pipeline)
    actor.kill()
    for attempt in (1, 2, 3, 4):
        # As it stands when the actor was killed between its commit and the shim.
        (world.home(job_id) / "runs" / str(attempt) / "input").mkdir(parents=True)
    Run.update(state=RunState.RUNNING, tries=4).where(Run.job_id == job_id).execute()
    world.launcher.start("platform")
    run = world.wait_run(job_id)
    assert (run.state, run.tries, pipeline.executions) == (RunState.SUCCEEDED, 5, 1)


def test_leftovers_of_a_kill_are_removed_at_start(world: World, tmp_path: Path) -> None:
    """A payload of a run that is over holds space that nobody could free."""
    actor = world.launcher.start("platform")
    over, waiting = world.create_run(world.shell("true")), world.create_run(world.shell("true"))
    actor.kill()
    Run.update(state=RunState.CANCELED).where(Run.job_id == over).execute()
    world.launcher.start("platform")
    assert not (world.home(over) / "payload").exists()
    assert (world.home(waiting) / "payload").exists()


def test_one_place_is_given_by_priority(world: World, tmp_path: Path) -> None:
    """What came later with a higher priority goes first, equal ones in their order, canceled ones never."""
    pipeline = Counted(world, tmp_path)
    world.launcher.start("platform")
    first = pipeline.start()
    order = [("lower", 3), ("normal", 2), ("immediate", 0), ("higher", 1), ("normal", 2), ("higher", 1)]
    jobs = [(world.start_run(pipeline.pipeline, priority), rank) for priority, rank in order]
    world.launcher.actors[0].wait_for(
        lambda: any(getattr(told, "detail", "") == "1 running, 6 waiting" for told in world.launcher.actors[0].told),
        "a heartbeat that counts them",
    )
    canceled = jobs.pop()[0]
    world.ask_platform(messages.CancelRun(run_id=world.run(canceled).run_id))
    assert world.run(canceled).state == RunState.CANCELED
    pipeline.release()
    for job_id, _ in jobs:
        world.wait_run(job_id)
    by_rank = [job_id for job_id, _ in sorted(jobs, key=lambda job: job[1])]
    assert pipeline.count.read_text().split() == [first, *by_rank]


def test_a_hanging_actor_that_is_replaced_disturbs_no_run(world: World, tmp_path: Path) -> None:
    pipeline = Counted(world, tmp_path)
    actor: RunningActor = world.launcher.start("platform")
    job_id = pipeline.start()
    actor.suspend()
    pipeline.release()
    wait_until(lambda: not world.processes() or (world.output(job_id).parent / "result.json").exists(), "its end")
    actor.kill()
    world.launcher.start("platform")
    assert world.wait_run(job_id).state == RunState.SUCCEEDED
    assert pipeline.executions == 1
