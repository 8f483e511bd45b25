"""The submitter with Clara Platform: every step that fails, every answer that is lost, a kill at every state.

What counts is what the server saw. It stands in this process; the submitter is a process of its own.
"""

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol import messages
from protocol.errors import ConfigurationError, RefusedError
from protocol.killpoints import KILL_DIRECTORY
from protocol.ledger import Instance, Submission
from protocol.platforms.clara.generated import jobs_pb2
from protocol.states import JobState
from tests.actors.launcher import Launcher, wait_until
from tests.actors.platform.world import World
from tests.clara.faults import Fault
from tests.clara.server import ClaraServer

PATH = "DicomAdapter.services.platform"
STEPS = ("Jobs/Create", "Jobs/AddMetadata", "Payloads/Upload", "Jobs/Start")


@pytest.fixture
def clara(tmp_path: Path) -> Iterator[ClaraServer]:
    with ClaraServer(tmp_path / "clara") as clara:
        yield clara


@pytest.fixture
def make_world(clara: ClaraServer, tmp_path: Path) -> Iterator[Callable[..., World]]:
    with contextlib.ExitStack() as stack:

        def make(*sets: str) -> World:
            ours = (f"{PATH}.endpoint={clara.endpoint}", f"{PATH}.uploadMetadata=true", f"{PATH}.timeoutSeconds=2")
            return stack.enter_context(World(tmp_path, *ours, *sets))

        yield make


def job_of(clara: ClaraServer, job_id: str) -> dict[str, Any]:
    """The platform's job with our UUID, of which there must be one."""
    (found,) = [job for job in clara.store.jobs() if job["metadata"].get("DicomAdapterJobId") == job_id]
    return found


def check_payload(world: World, clara: ClaraServer, job_id: str, group_id: int) -> None:
    """Every instance once, its bytes equal, and nothing else."""
    payload_id = str(job_of(clara, job_id)["payload_id"])
    blobs = {Path(name).name: path.read_bytes() for name, path in clara.store.blobs(payload_id).items()}
    rows = Instance.select().where(Instance.group_id == group_id)
    assert blobs == {
        f"{row.sop_instance_uid}.dcm": Path(world.spool.instance_path(row.identifier)).read_bytes() for row in rows
    }
    uploads = Counter(name for payload, name in clara.uploaded if payload == payload_id)
    assert set(uploads.values()) == {1}, "a blob was uploaded twice"


def test_a_job_arrives_as_decided(clara: ClaraServer, make_world: Callable[..., World]) -> None:
    """Name, priority, metadata, bytes; what becomes of it comes back, and the log knows no patient."""
    world = make_world()
    submitter = world.launcher.start("submitter")
    group_id = world.group(30, size=4000, attributes={"00100020": "PAT-1", "00080060": "CT"})
    job_id = world.job(group_id, clara.store.add_pipeline("covid"), "higher")
    world.tell_jobs(job_id, job_id)
    row = world.wait_submission(job_id, JobState.COMPLETED)
    job = job_of(clara, job_id)
    assert (row.platform_job_id, row.payload_id, row.uploaded, row.tries) == (
        job["job_id"],
        job["payload_id"],
        30,
        0,
    )
    assert (job["name"], job["priority"]) == (f"ae-test-{job_id}", jobs_pb2.JOB_PRIORITY_HIGHER)
    assert job["metadata"] == {
        "Source": "AE (aetitle)",
        "Instances": "30",
        "DicomAdapterJobId": job_id,
        "00100020": "PAT-1",
        "00080060": "CT",
    }
    check_payload(world, clara, job_id, group_id)
    assert [clara.faults.count(step) for step in STEPS] == [1, 1, 30, 1]
    assert not clara.faults.count("Jobs/List"), "nothing is looked for that was never in doubt"
    wait_until(lambda: world.submission(job_id).platform_state == "Succeeded", "the platform's state")
    assert "PAT-1" not in submitter.log_text()


def test_what_failed_there_cannot_be_run_again(clara: ClaraServer, make_world: Callable[..., World]) -> None:
    """It says so, and stays as it is."""
    world = make_world()
    world.launcher.start("submitter")
    job_id = world.job(world.group(1), clara.store.add_pipeline("covid"))
    world.tell_jobs(job_id)
    world.wait_submission(job_id, JobState.COMPLETED)
    wait_until(lambda: world.submission(job_id).platform_state == "Succeeded", "the platform's state")
    Submission.update(platform_state="Failed").where(Submission.job_id == job_id).execute()
    calls = clara.faults.calls.copy()
    for command in (messages.RetryJobs(job_ids=(job_id,), failed=True), messages.RetryJobs(ae_title="AE", failed=True)):
        with pytest.raises(RefusedError, match="have the study sent again"):
            world.ask_submitter(command)
    assert world.ask_submitter(messages.RetryJobs(ae_title="OTHER", failed=True)) == messages.Done()
    assert world.ask_submitter(messages.RetryJobs(job_ids=(job_id,))) == messages.Done()  # it did not fault
    assert world.submission(job_id).platform_state == "Failed"
    assert clara.faults.calls == calls


def test_a_step_is_tried_again_as_configured_and_those_before_it_are_not(
    clara: ClaraServer, make_world: Callable[..., World]
) -> None:
    """Two retries a second apart, then Faulted; a person's retry goes on from there."""
    world = make_world(f"{PATH}.maxRetries=2", f"{PATH}.retryDelaySeconds=1")
    world.launcher.start("submitter")
    pipeline = clara.store.add_pipeline("covid")
    for step in STEPS:
        before = clara.faults.calls.copy()
        group_id = world.group(1, attributes={"00080060": "CT"})
        job_id = world.job(group_id, pipeline)
        clara.faults.add(step, Fault.REFUSE, times=3)
        world.tell_jobs(job_id)
        row = world.wait_submission(job_id, JobState.FAULTED)
        assert (row.tries, row.unreachable, "INTERNAL" in row.last_error) == (3, False, True)
        assert clara.faults.calls[step] - before[step] == 3
        times = clara.faults.times[step][-3:]
        assert all(1.0 <= later - earlier < 10.0 for earlier, later in itertools.pairwise(times))
        assert world.ask_submitter(messages.RetryJobs(job_ids=(job_id,))) == messages.Done(affected=1)
        world.wait_submission(job_id, JobState.COMPLETED)
        counts = {each: clara.faults.calls[each] - before[each] for each in STEPS}
        assert counts == {each: 4 if each == step else 1 for each in STEPS}
        check_payload(world, clara, job_id, group_id)


def test_a_step_whose_answer_was_lost_is_not_done_again(clara: ClaraServer, make_world: Callable[..., World]) -> None:
    """The connection ends, or what comes is no answer, or it comes too late; the platform did the work."""
    world = make_world(f"{PATH}.maxRetries=20")
    world.launcher.start("submitter")
    pipeline = clara.store.add_pipeline("covid")
    lost = itertools.product((Fault.CUT_AFTER, Fault.GARBAGE, Fault.SLOW), STEPS)
    for jobs, (fault, step) in enumerate(lost, 1):
        before = clara.faults.calls.copy()
        group_id = world.group(3, attributes={"00080060": "CT"})
        job_id = world.job(group_id, pipeline)
        clara.faults.add(step, fault, seconds=2.5)
        world.tell_jobs(job_id)
        row = world.wait_submission(job_id, JobState.COMPLETED)
        assert clara.faults.struck.pop() == f"{step}:{fault.value}"
        gone_back = {"Queued": 0, "Created": 0, "MetadataUploaded": 0, "PayloadUploaded": 0}
        for state, _ in row.steps:
            if state in gone_back:
                gone_back[state] += 1
        # Whether a job was started is seen at once.
        assert (max(gone_back.values()) > 1) is ((fault, step) != (Fault.GARBAGE, "Jobs/Start"))
        assert len(clara.store.jobs()) == jobs
        assert job_of(clara, job_id)["metadata"]["00080060"] == "CT"
        check_payload(world, clara, job_id, group_id)
        if fault is not Fault.SLOW:
            created, added, uploaded, started = (clara.faults.calls[each] - before[each] for each in STEPS)
            assert (created, added, started) == (1, 1, 1), f"{fault} {step}"
            # Files are uploaded several at once: a connection that ends takes those with it that are under way.
            most = 5 if (fault, step) == (Fault.CUT_AFTER, "Payloads/Upload") else 3
            assert 3 <= uploaded <= most, f"{fault} {step}"


KILLS = (
    *(("submitter.committed", held) for held in ("", *STEPS)),
    ("submitter.created", ""),
    ("submitter.metadata-added", ""),
    ("submitter.file-linked", ""),
    ("submitter.uploaded", ""),
    ("submitter.started", ""),
)
"""Points, and the call that the server holds up meanwhile; so the commit that is killed is one in that state."""


def test_a_kill_at_any_state_doubles_nothing(
    clara: ClaraServer, make_world: Callable[..., World], tmp_path: Path
) -> None:
    """The next process goes on; the server sees only what was under way at the kill a second time."""
    world = make_world()
    kills = tmp_path / "kills"
    kills.mkdir()
    world.launcher.environment[KILL_DIRECTORY] = str(kills)
    submitter = world.launcher.start("submitter")
    pipeline = clara.store.add_pipeline("covid")
    for number, (point, held) in enumerate(KILLS, 1):
        before = clara.faults.calls.copy()
        group_id = world.group(8, attributes={"00080060": "CT"})
        job_id = world.job(group_id, pipeline)
        if held:
            clara.faults.add(held, Fault.SLOW, seconds=1.0)
            world.tell_jobs(job_id)
            wait_until(lambda: clara.faults.struck, f"{held}")
            clara.faults.struck.clear()
        (kills / point).write_text("kill")
        world.tell_jobs(job_id)
        submitter.wait_ended()
        submitter = world.launcher.start("submitter")
        world.wait_submission(job_id, JobState.COMPLETED)
        check_payload(world, clara, job_id, group_id)
        # A call that the server still has in hand at the kill may come again, but not a creation: that is looked for.
        again = {"Jobs/AddMetadata": 1, "Payloads/Upload": 4, "Jobs/Start": 1}
        for each in STEPS:
            calls, least = clara.faults.calls[each] - before[each], 8 if each == "Payloads/Upload" else 1
            assert least <= calls <= least + (again.get(each, 0) if each == held else 0), f"{point} {held}: {each}"
        assert len(clara.store.jobs()) == number


def test_a_platform_that_is_broken_for_one_job_is_not_for_others(
    clara: ClaraServer, make_world: Callable[..., World]
) -> None:
    """Garbage, silence, a connection that ends: one job's step fails with its reason, and the others go on."""
    world = make_world(f"{PATH}.maxRetries=3")
    submitter = world.launcher.start("submitter")
    pipeline = clara.store.add_pipeline("covid")
    groups = [world.group(3, attributes={"00080060": "CT"}) for _ in range(5)]
    for fault in (Fault.GARBAGE, Fault.HANG, Fault.CUT, Fault.HEADER, Fault.EMPTY):
        clara.faults.add("Jobs/Create", fault)
    jobs = [world.job(group_id, pipeline) for group_id in groups]
    world.tell_jobs(*jobs)
    for job_id, group_id in zip(jobs, groups, strict=True):
        world.wait_submission(job_id, JobState.COMPLETED, seconds=60)
        check_payload(world, clara, job_id, group_id)
    assert len(clara.store.jobs()) == 5
    submitter.wait_for_log("step_failed", count=5)


def test_the_200th_of_400_uploads_is_cut(clara: ClaraServer, make_world: Callable[..., World]) -> None:
    """Each blob is there once, whole, and what was whole was not sent again."""
    world = make_world()
    world.launcher.start("submitter")
    group_id = world.group(400, size=40_000)
    job_id = world.job(group_id, clara.store.add_pipeline("covid"))
    clara.faults.add("Payloads/Upload", Fault.CUT, skip=199)
    world.tell_jobs(job_id)
    world.wait_submission(job_id, JobState.COMPLETED, seconds=120)
    check_payload(world, clara, job_id, group_id)
    assert clara.faults.struck == ["Payloads/Upload:cut"]
    assert 400 <= clara.faults.count("Payloads/Upload") <= 404, "only the four that were under way"


def test_an_absent_platform_is_waited_for(make_world: Callable[..., World], clara: ClaraServer, tmp_path: Path) -> None:
    """Faulted as unreachable, and taken up again by itself."""
    world = make_world(f"{PATH}.maxRetries=0")
    world.launcher.start("submitter")
    port, pipeline = clara.port, clara.store.add_pipeline("covid")
    clara.close()
    group_id = world.group(2)
    job_id = world.job(group_id, pipeline)
    world.tell_jobs(job_id)
    assert world.wait_submission(job_id, JobState.FAULTED).unreachable
    with ClaraServer(tmp_path / "clara", port) as again:
        world.wait_submission(job_id, JobState.COMPLETED, seconds=60)
        check_payload(world, again, job_id, group_id)


def test_a_drain_ends_soon_though_the_platform_is_silent(clara: ClaraServer, make_world: Callable[..., World]) -> None:
    world = make_world(f"{PATH}.timeoutSeconds=600")
    submitter = world.launcher.start("submitter")
    job_id = world.job(world.group(2), clara.store.add_pipeline("covid"))
    clara.faults.add("Jobs/Create", Fault.HANG)
    world.tell_jobs(job_id)
    wait_until(lambda: clara.faults.struck, "the creation")
    submitter.drain(5)
    assert submitter.wait_ended(8) == 0
    assert world.submission(job_id).state == JobState.CREATING
    world.launcher.start("submitter")
    world.wait_submission(job_id, JobState.COMPLETED)


def test_a_discarded_job_is_canceled_there(clara: ClaraServer, make_world: Callable[..., World]) -> None:
    """And one that the platform will not cancel keeps no other one there."""
    world = make_world(f"{PATH}.maxRetries=0")
    world.launcher.start("submitter")
    pipeline_id = clara.store.add_pipeline("covid")
    job_ids = tuple(world.job(world.group(2), pipeline_id) for _ in range(2))
    clara.faults.add("Jobs/Start", Fault.REFUSE, times=2)
    clara.faults.add("Jobs/Cancel", Fault.REFUSE, code="FAILED_PRECONDITION")
    world.tell_jobs(*job_ids)
    for job_id in job_ids:
        world.wait_submission(job_id, JobState.FAULTED)
    world.ask_submitter(messages.DiscardJobs(job_ids=job_ids))
    for job_id in job_ids:
        wait_until(lambda job_id=job_id: world.submission(job_id).platform_state == "Canceled", "its cancellation")
    assert clara.faults.count("Jobs/Cancel") == 2
    states = sorted(job_of(clara, job_id)["status"] == jobs_pb2.JOB_STATUS_CANCELED for job_id in job_ids)
    assert states == [False, True]


def test_without_the_extra_there_is_a_remedy(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked" / "nvidia_clara"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError('not installed', name='nvidia_clara')\n")
    environment = {"PYTHONPATH": str(blocked.parent)}
    with Launcher(tmp_path, f"{PATH}.endpoint=clara:5000", environment=environment) as launcher:
        submitter = launcher.start("submitter", ready=False)
        assert submitter.wait_ended() == ConfigurationError.exit_code
        assert "install dicom-adapter[clara]" in submitter.log_text()
