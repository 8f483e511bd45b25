"""The submitter with the real platform, both as processes: the whole way, kills at every state, odd messages."""

import itertools
import os
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol import messages
from protocol.clock import NANOSECONDS
from protocol.errors import RefusedError
from protocol.ledger import Instance, Run, Submission
from protocol.spool import walk_files
from protocol.states import JobState, RunState
from tests.actors.launcher import wait_until
from tests.actors.platform.world import World

DONE = (JobState.COMPLETED,)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, "DicomAdapter.services.platform.concurrentRuns=4") as world:
        yield world


@pytest.fixture
def counting(world: World, tmp_path: Path) -> str:
    """A pipeline that counts its executions in a file."""
    return world.shell(f"echo $JOB_ID >> {tmp_path}/count; find $INPUT_DIR -type f | wc -l > files")


def executions(tmp_path: Path) -> list[str]:
    return (tmp_path / "count").read_text().split()


def test_a_job_becomes_a_run_on_its_files(world: World, tmp_path: Path) -> None:
    """Names, bytes, metadata, states: as decided, and the platform's state comes back."""
    platform, submitter = world.launcher.start("platform"), world.launcher.start("submitter")
    group_id = world.group(30, size=4000)
    pipeline = world.shell("cp -r $INPUT_DIR/dcm .")
    job_id = world.job(group_id, pipeline, "higher")
    world.tell_jobs(job_id, job_id)
    world.tell_jobs(job_id)
    row = world.wait_submission(job_id, *DONE)
    assert row.steps[0][0] == "Queued"
    assert len(row.steps) == 9
    assert (row.uploaded, row.tries, row.last_error) == (30, 0, "")
    run = world.wait_run(job_id)
    assert (run.state, run.priority, run.run_id) == (RunState.SUCCEEDED, "higher", row.platform_job_id)
    assert run.payload_id == row.payload_id
    assert run.metadata == {"Source": "AE (aetitle)", "Instances": "30", "DicomAdapterJobId": job_id}
    files = {path.name: path.read_bytes() for path in walk_files(world.output(job_id))}
    rows = Instance.select().where(Instance.group_id == group_id)
    assert files == {
        f"{row.sop_instance_uid}.dcm": Path(world.spool.instance_path(row.identifier)).read_bytes() for row in rows
    }
    wait_until(lambda: world.submission(job_id).platform_state == "Succeeded", "the platform's state in the submission")
    for actor in (platform, submitter):
        assert "PAT-1" not in actor.log_text()


@pytest.mark.alone
def test_the_way_to_the_command_is_short(world: World, tmp_path: Path) -> None:
    """400 files: measured well below 0.3 s; the limit here is for busy machines."""
    world.launcher.start("platform")
    world.launcher.start("submitter")
    warm, job_id = (world.job(world.group(400, size=400), world.shell("true")) for _ in range(2))
    world.tell_jobs(warm)
    world.wait_run(warm)
    begun = time.time_ns()
    world.tell_jobs(job_id)
    world.wait_run(job_id)
    assert (world.run(job_id).started_ns - begun) / NANOSECONDS < 2.0


def test_configured_tags_go_along(tmp_path: Path) -> None:
    sets = (
        "DicomAdapter.services.platform.uploadMetadata=true",
        "DicomAdapter.services.platform.metadataDicomSource.0=0010,0020",
        "DicomAdapter.services.platform.metadataDicomSource.1=0020,000D",
    )
    with World(tmp_path, *sets) as world:
        world.launcher.start("platform")
        world.launcher.start("submitter")
        group_id = world.group(3, attributes={"00100020": "PAT-1", "0020000D": "1.2"})
        row = Instance.select().where(Instance.group_id == group_id).order_by(Instance.identifier.desc()).first()
        Instance.update(attributes={"00100020": "PAT-1", "0020000D": "1.3"}).where(
            Instance.identifier == row.identifier
        ).execute()
        job_id = world.job(group_id, world.shell("true"))
        world.tell_jobs(job_id)
        world.wait_submission(job_id, *DONE)
        added = {name: value for name, value in world.run(job_id).metadata.items() if name[0] == "0"}
        assert added == {"00100020": "PAT-1", "0020000D-0": "1.2", "0020000D-1": "1.3"}


def test_jobs_whose_message_was_lost_are_found(world: World, counting: str, tmp_path: Path) -> None:
    """One from before the start, one in the middle of life."""
    before = world.job(world.group(), counting)
    world.launcher.start("platform")
    world.launcher.start("submitter")
    later = world.job(world.group(), counting)
    for job_id in (before, later):
        world.wait_submission(job_id, *DONE)
        world.wait_run(job_id, RunState.SUCCEEDED)
    assert sorted(executions(tmp_path)) == sorted([before, later])


def test_an_unknown_pipeline_faults_the_job_at_once_and_it_can_be_retried(world: World) -> None:
    """No retries, a sentence with its remedy, and nothing lost; others go on."""
    world.launcher.start("platform")
    submitter = world.launcher.start("submitter")
    group_id = world.group()
    lost, kept, good = (world.job(group_id, p) for p in ("no-such", "no-such-either", world.shell("true")))
    world.tell_jobs(lost, kept, good)
    row = world.wait_submission(lost, JobState.FAULTED)
    world.wait_submission(kept, JobState.FAULTED)
    assert (row.tries, row.unreachable, "create pipeline" in row.last_error) == (1, False, True)
    world.wait_run(good, RunState.SUCCEEDED)
    submitter.wait_for_log("job_faulted", count=2)

    pipeline = world.shell("true")
    update = f"UPDATE pipeline SET pipeline_id = 'no-such' WHERE pipeline_id = '{pipeline}'"
    world.ledger.database.execute_sql(update)
    assert world.ask_submitter(messages.RetryJobs(pipeline_id="other")) == messages.Done()
    assert world.ask_submitter(messages.RetryJobs(pipeline_id="no-such", ae_title="AE")) == messages.Done(affected=1)
    world.wait_run(lost, RunState.SUCCEEDED)
    assert world.submission(kept).state == JobState.FAULTED


def test_failed_jobs_are_run_again_by_any_of_their_properties(world: World, tmp_path: Path) -> None:
    """What faulted is not among them, nor what the platform does not have any more."""
    world.launcher.start("platform")
    submitter = world.launcher.start("submitter")
    pipelines = [world.shell(f"test -e {tmp_path}/mended") for _ in range(2)]
    one, two, gone = (world.job(world.group(), pipeline) for pipeline in (*pipelines, pipelines[0]))
    faulted = world.job(world.group(), "no-such")
    world.tell_jobs(one, two, gone, faulted)
    world.wait_submission(faulted, JobState.FAULTED)
    for job_id in (one, two, gone):
        wait_until(lambda job_id=job_id: world.submission(job_id).platform_state == "Failed", "its failure")
    Run.delete().where(Run.job_id == gone).execute()
    (tmp_path / "mended").touch()

    assert world.ask_submitter(messages.RetryJobs(failed=True, ae_title="OTHER")) == messages.Done()
    assert world.ask_submitter(messages.RetryJobs(failed=True, pipeline_id=pipelines[1].upper())) == messages.Done(
        affected=1
    )
    world.wait_run(two, RunState.SUCCEEDED)
    assert world.run(one).state == RunState.FAILED
    assert world.ask_submitter(messages.RetryJobs(failed=True)) == messages.Done(affected=1)
    world.wait_run(one, RunState.SUCCEEDED)
    for job_id in (one, two):
        wait_until(lambda job_id=job_id: world.submission(job_id).platform_state == "Succeeded", "its success")
    with pytest.raises(RefusedError, match="have the study sent again"):
        world.ask_submitter(messages.RetryJobs(failed=True, job_ids=(gone,)))
    assert world.submission(gone).platform_state == "Failed"
    assert world.submission(faulted).state == JobState.FAULTED
    assert "rerun_broke" not in submitter.log_text()


def test_faulted_jobs_are_chosen_by_any_of_their_properties(world: World) -> None:
    """And what is discarded is freed on the platform too."""
    world.launcher.start("platform")
    world.launcher.start("submitter")
    group_id = world.group()
    wanted = [
        world.job(group_id, f"no-{number}", created_ns=number * NANOSECONDS, ae_title=f"AE{number}")
        for number in range(1, 7)
    ]
    world.tell_jobs(*wanted)
    for job_id in wanted:
        world.wait_submission(job_id, JobState.FAULTED)
    pipeline = world.shell("true")
    created = world.job(group_id, "x", job_id=world.create_run(pipeline), created_ns=0)
    Submission.create(job_id=created, state=JobState.FAULTED, created_ns=1, updated_ns=1)

    def discard(**fields: object) -> object:
        return world.ask_submitter(messages.DiscardJobs(**fields))  # type: ignore[arg-type]

    assert discard(job_ids=(wanted[0],)) == messages.Done(affected=1)
    assert discard(job_ids=(wanted[0],)) == messages.Done()
    assert discard(ae_title="AE2") == messages.Done(affected=1)
    assert discard(pipeline_id="no-3") == messages.Done(affected=1)
    assert discard(since_ns=4 * NANOSECONDS, until_ns=5 * NANOSECONDS) == messages.Done(affected=2)
    assert discard() == messages.Done(affected=2)
    for job_id in (*wanted, created):
        assert world.submission(job_id).state == JobState.DISCARDED
    world.wait_run(created, RunState.CANCELED)
    wait_until(lambda: world.submission(created).platform_state == "Canceled", "the cancelation on record")


def test_an_instance_that_is_gone_from_the_spool_faults_its_job_only(world: World) -> None:
    world.launcher.start("platform")
    world.launcher.start("submitter")
    group_id, pipeline = world.group(3), world.shell("true")
    row = Instance.select().where(Instance.group_id == group_id).first()
    os.unlink(world.spool.instance_path(row.identifier))
    lost, good = world.job(group_id, pipeline), world.job(world.group(3), pipeline)
    world.tell_jobs(lost, good)
    submission = world.wait_submission(lost, JobState.FAULTED)
    assert submission.tries == 4
    assert "is not in the spool any more" in submission.last_error
    assert "PAT-1" not in submission.last_error
    world.wait_run(good, RunState.SUCCEEDED)


STEPS = ("Creating", "MetadataUploading", "PayloadUploading", "Starting")


def as_left_by_a_kill(world: World, pipeline: str, step: int, *, had_its_effect: bool) -> str:
    """A job in the middle of a step, whose effect is or is not on the platform."""
    group_id = world.group(3)
    job_id = world.job(group_id, pipeline)
    done = step + had_its_effect
    columns: dict[str, object] = {}
    if done > 0:
        create = messages.CreateRun(job_id=job_id, name="n", pipeline_id=pipeline, priority="normal", metadata={})
        answer = world.ask_platform(create)
        assert isinstance(answer, messages.RunCreated)
        ids = (answer.run_id, answer.payload_id, answer.payload_directory)
        if step > 0:
            columns = dict(zip(("platform_job_id", "payload_id", "payload_directory"), ids, strict=True))
        if done > 2:
            world.link_payload(group_id, answer.payload_directory)
        if done > 3:
            world.ask_platform(messages.StartRun(run_id=answer.run_id))
            world.wait_run(job_id)
    state = STEPS[step]
    Submission.create(job_id=job_id, state=state, created_ns=1, updated_ns=1, steps=[[state, 1]], **columns)
    return job_id


def test_a_kill_at_any_state_makes_one_run(world: World, counting: str, tmp_path: Path) -> None:
    """The ledger as a killed submitter leaves it, with the step under way done or not."""
    world.launcher.start("platform")
    left = itertools.product(range(len(STEPS)), (False, True))
    jobs = [as_left_by_a_kill(world, counting, step, had_its_effect=done) for step, done in left]
    world.launcher.start("submitter")
    for job_id in jobs:
        world.wait_submission(job_id, *DONE)
        world.wait_run(job_id, RunState.SUCCEEDED)
        assert (world.output(job_id) / "files").read_text().strip() == "3"
    assert sorted(executions(tmp_path)) == sorted(jobs)


def test_a_kill_between_command_and_answer_makes_one_run(world: World, counting: str, tmp_path: Path) -> None:
    """The platform hangs with the command in its queue; the submitter that sent it is killed."""
    platform, submitter = world.launcher.start("platform"), world.launcher.start("submitter")
    platform.suspend()
    job_id = world.job(world.group(3), counting)
    world.tell_jobs(job_id)
    world.wait_submission(job_id, JobState.CREATING)
    submitter.kill()
    platform.resume()
    world.launcher.start("submitter")
    world.wait_run(job_id, RunState.SUCCEEDED)
    assert executions(tmp_path) == [job_id]


def test_random_kills_of_both_lose_and_double_nothing(world: World, counting: str, tmp_path: Path) -> None:
    """Every job ends on the platform, executed once, whoever was killed when."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    actors = {kind: world.launcher.start(kind) for kind in ("platform", "submitter")}
    group_id = world.group(20)
    jobs = []
    for _ in range(8):
        jobs += [world.job(group_id, counting) for _ in range(5)]
        world.tell_jobs(*jobs[-5:])
        wait_until(lambda: chance.random() < 0.2, "chance")
        kind = chance.choice(["platform", "submitter", "submitter"])
        actors[kind].kill()
        actors[kind] = world.launcher.start(kind)
    for job_id in jobs:
        world.wait_submission(job_id, *DONE)
        assert world.wait_run(job_id).state == RunState.SUCCEEDED, f"seed {seed}: {world.run(job_id).error}"
    assert sorted(executions(tmp_path)) == sorted(jobs), f"seed {seed}"


def test_a_restart_of_the_platform_costs_a_pause_and_no_try(world: World, counting: str, tmp_path: Path) -> None:
    platform = world.launcher.start("platform")
    submitter = world.launcher.start("submitter")
    platform.tell(messages.Drain(seconds=5))
    platform.wait_ended()
    job_id = world.job(world.group(3), counting)
    world.tell_jobs(job_id)
    world.wait_submission(job_id, JobState.CREATING)
    world.launcher.start("platform")
    world.wait_run(job_id, RunState.SUCCEEDED)
    assert "step_failed" not in submitter.log_text()


def test_a_drain_ends_soon_and_the_next_process_goes_on(world: World, counting: str) -> None:
    """Even when the platform does not answer."""
    submitter = world.launcher.start("submitter")
    job_id = world.job(world.group(3), counting)
    world.tell_jobs(job_id)
    world.wait_submission(job_id, JobState.CREATING)
    submitter.tell(messages.Drain(seconds=5))
    assert submitter.wait_ended(5) == 0
    assert world.submission(job_id).state == JobState.CREATING
    world.launcher.start("platform")
    world.launcher.start("submitter")
    world.wait_run(job_id, RunState.SUCCEEDED)


def test_a_submitter_without_descriptors_is_no_fault_of_its_jobs(tmp_path: Path) -> None:
    """They go on by themselves when it has some again."""
    sets = [f"DicomAdapter.services.platform.{name}" for name in ("maxRetries=1", "retryDelaySeconds=0")]
    with World(tmp_path, *sets) as world:
        world.launcher.start("platform")
        submitter = world.launcher.start("submitter")
        group_id, pipeline = world.group(), world.shell("true")
        hard = resource.prlimit(submitter.pid, resource.RLIMIT_NOFILE)[1]
        used = len(os.listdir(f"/proc/{submitter.pid}/fd"))
        resource.prlimit(submitter.pid, resource.RLIMIT_NOFILE, (used, hard))
        jobs = [world.job(group_id, pipeline) for _ in range(2)]
        world.tell_jobs(*jobs)
        for job_id in jobs:
            assert world.wait_submission(job_id, JobState.FAULTED).unreachable
        resource.prlimit(submitter.pid, resource.RLIMIT_NOFILE, (hard, hard))
        for job_id in jobs:
            world.wait_submission(job_id, *DONE, seconds=60.0)
            world.wait_run(job_id, RunState.SUCCEEDED)
        assert "marker=UNEXPECTED" not in submitter.log_text()
