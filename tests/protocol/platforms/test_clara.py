"""Clara Platform as its client sees it: calls, deadlines, failures, and what is found after an answer was lost."""

import io
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from protocol.errors import ConfigurationError, RefusedError, StorageError, UnavailableError
from protocol.platforms.base import (
    JOB_ID_KEY,
    JobRequest,
    PayloadFile,
    PlatformError,
    PlatformJob,
    Sought,
    StepInterruptedError,
)
from protocol.platforms.clara.clara import ClaraPlatform
from protocol.platforms.clara.generated import jobs_pb2
from protocol.states import PLATFORM_STATES
from tests.actors.launcher import wait_until
from tests.clara.certificates import Authority
from tests.clara.faults import Fault
from tests.clara.server import ClaraServer
from tests.protocol.platforms.opening import PLATFORM, opened

TIMEOUT_SECONDS = 1.0


@pytest.fixture
def clara(tmp_path: Path) -> Iterator[ClaraServer]:
    with ClaraServer(tmp_path / "clara", finish=False) as clara:
        yield clara


@pytest.fixture
def stopping() -> threading.Event:
    return threading.Event()


@pytest.fixture
def platform(clara: ClaraServer, stopping: threading.Event, tmp_path: Path) -> Iterator[ClaraPlatform]:
    with opened(clara.endpoint, tmp_path, stopping, timeout_seconds=TIMEOUT_SECONDS) as platform:
        yield platform


def request(pipeline_id: str, priority: str = "normal") -> JobRequest:
    job_id = str(uuid.uuid4())
    metadata = {"Source": "AE (aetitle)", JOB_ID_KEY: job_id}
    return JobRequest(
        job_id=job_id, name="ae-covid-20260101", pipeline_id=pipeline_id, priority=priority, metadata=metadata
    )


def created(clara: ClaraServer, platform: ClaraPlatform) -> PlatformJob:
    return platform.create(request(clara.store.add_pipeline("covid")))


def files(directory: Path, *sizes: int) -> list[PayloadFile]:
    made = []
    for number, size in enumerate(sizes):
        path = directory / f"file-{number}"
        path.write_bytes(bytes([number % 251]) * size)
        made.append(PayloadFile(name=f"dcm/PAT-1/1.2/1.3/{number}.dcm", path=str(path)))
    return made


def wait_until_it_answers(platform: ClaraPlatform) -> None:
    """A connection that was lost is made again after a moment, and calls fail meanwhile."""

    def answers() -> bool:
        try:
            return platform.find(Sought(job_id="x")) is None
        except UnavailableError:
            return False

    wait_until(answers, "the platform answers")


def test_the_whole_way_of_a_job(clara: ClaraServer, platform: ClaraPlatform, tmp_path: Path) -> None:
    """Created, described, filled, started, followed, and its files read back; an empty and a large file among them."""
    asked = request(clara.store.add_pipeline("covid", "p-1"), "immediate")
    job = platform.create(asked)
    platform.add_metadata(job, {"00100020": "PAT-1"})
    wanted = files(tmp_path, 0, 1, 700_000)
    platform.upload(job, wanted, again=False)
    found = platform.find(Sought(job_id=asked.job_id, platform_job_id=job.platform_job_id))
    assert found
    assert not found.started
    platform.start(job)
    there = clara.store.job(job.platform_job_id)
    assert (there["name"], there["priority"], there["pipeline_id"]) == (
        asked.name,
        jobs_pb2.JOB_PRIORITY_IMMEDIATE,
        "p-1",
    )
    assert there["metadata"] == {**asked.metadata, "00100020": "PAT-1"}
    for file in wanted:
        target = io.BytesIO()
        platform.download(job.payload_id, file.name, target)
        assert target.getvalue() == Path(file.path).read_bytes()
    sought = Sought(job_id=asked.job_id, platform_job_id=job.platform_job_id)
    assert [(state.name, state.final) for state in platform.states([sought]).values()] == [("Running", False)]
    for status, words in ((1, "Succeeded"), (2, "Failed"), (3, "Canceled"), (4, "Evicted"), (5, "Terminated")):
        clara.store.stop(job.platform_job_id, status)
        assert [(state.name, state.final) for state in platform.states([sought]).values()] == [(words, True)]
        assert words in PLATFORM_STATES
    gone = Sought(job_id="x", platform_job_id="no-such")
    found = platform.states([gone, sought])["x"]
    assert found.final
    assert found.name in PLATFORM_STATES


def test_a_job_is_found_by_its_uuid_alone(clara: ClaraServer, platform: ClaraPlatform) -> None:
    """Not by its name, pipeline or time, which another job has too."""
    one = request(clara.store.add_pipeline("covid"))
    other = JobRequest(
        job_id=str(uuid.uuid4()), name=one.name, pipeline_id=one.pipeline_id, priority="normal", metadata={}
    )
    platform.create(other)
    sought = Sought(job_id=one.job_id, pipeline_id=one.pipeline_id, created_ns=time.time_ns())
    assert platform.find(sought) is None
    made = platform.create(one)
    assert platform.find(sought) == made
    assert platform.find(Sought(job_id=one.job_id)) == made
    assert platform.find(Sought(job_id=one.job_id, pipeline_id="another")) is None


@pytest.mark.parametrize("fault", [Fault.CUT_AFTER, Fault.GARBAGE, Fault.EMPTY])
def test_a_job_whose_creation_was_answered_badly_is_there(
    clara: ClaraServer, platform: ClaraPlatform, fault: Fault
) -> None:
    asked = request(clara.store.add_pipeline("covid"))
    clara.faults.add("Jobs/Create", fault)
    with pytest.raises(UnavailableError if fault is Fault.CUT_AFTER else PlatformError):
        platform.create(asked)
    wait_until_it_answers(platform)
    found = platform.find(Sought(job_id=asked.job_id, pipeline_id=asked.pipeline_id, created_ns=time.time_ns()))
    assert found
    assert len(clara.store.jobs()) == 1


def test_a_creation_that_comes_late_is_waited_for(clara: ClaraServer, platform: ClaraPlatform) -> None:
    """The deadline has passed, and the platform creates it all the same."""
    asked = request(clara.store.add_pipeline("covid"))
    clara.faults.add("Jobs/Create", Fault.SLOW, seconds=TIMEOUT_SECONDS + 1.0)
    tried_ns = time.time_ns()
    with pytest.raises(UnavailableError, match="DEADLINE_EXCEEDED"):
        platform.create(asked)
    assert not clara.store.jobs()
    assert platform.find(Sought(job_id=asked.job_id, pipeline_id=asked.pipeline_id, tried_ns=tried_ns))
    assert len(clara.store.jobs()) == 1


def test_a_creation_that_was_refused_is_not_waited_for(clara: ClaraServer, platform: ClaraPlatform) -> None:
    asked = request("no-such")
    tried_ns = time.time_ns()
    with pytest.raises(RefusedError, match="no such pipeline"):
        platform.create(asked)
    platform.late_seconds = 600.0  # type: ignore[misc] # for this one
    assert platform.find(Sought(job_id=asked.job_id, tried_ns=tried_ns)) is None


def test_of_two_jobs_with_one_uuid_one_is_kept(clara: ClaraServer, platform: ClaraPlatform) -> None:
    """The one that was started, if any was."""
    asked = request(clara.store.add_pipeline("covid"))
    first, second = platform.create(asked), platform.create(asked)
    clara.store.start(second.platform_job_id)
    for _ in range(2):
        found = platform.find(Sought(job_id=asked.job_id))
        assert found
        assert found.platform_job_id == second.platform_job_id
        assert clara.store.job(first.platform_job_id)["status"] == jobs_pb2.JOB_STATUS_CANCELED


def test_what_is_whole_is_not_uploaded_again(clara: ClaraServer, platform: ClaraPlatform, tmp_path: Path) -> None:
    """A connection that ends in the middle: half a file is replaced, the others are left, the rest follows."""
    job = created(clara, platform)
    wanted = files(tmp_path, *[100] * 7, 600_000, *[100] * 4)
    clara.faults.add("Payloads/Upload", Fault.CUT, skip=7)
    platform._payloads._parallel = 1
    with pytest.raises(UnavailableError) as caught:
        platform.upload(job, wanted, again=False)
    assert "PAT-1" not in str(caught.value)
    wait_until_it_answers(platform)
    assert 0 < clara.store.blobs(job.payload_id)[wanted[7].name].stat().st_size < 600_000
    platform.upload(job, wanted, again=True)
    assert [name for _, name in clara.uploaded] == [file.name for file in wanted]
    assert clara.faults.count("Payloads/Remove") == 1
    for file in wanted:
        assert clara.store.blobs(job.payload_id)[file.name].read_bytes() == Path(file.path).read_bytes()


def test_what_came_there_meanwhile_is_no_failure(clara: ClaraServer, platform: ClaraPlatform, tmp_path: Path) -> None:
    """What a killed process had sent is carried out after its successor has looked."""
    job = created(clara, platform)
    whole, half = files(tmp_path, 10, 10)
    platform.add_metadata(job, {"00100020": "PAT-1"})
    platform.add_metadata(job, {"00100020": "PAT-1", "00080060": "CT"})
    platform.add_metadata(job, {"00100020": "PAT-1", "00080060": "CT"})
    assert clara.store.job(job.platform_job_id)["metadata"]["00080060"] == "CT"
    for _ in range(2):
        platform.upload(job, [whole], again=False)
    clara.store.write(job.payload_id, half.name, iter([b"x"]))
    with pytest.raises(PlatformError, match="half a file"):
        platform.upload(job, [half], again=False)
    platform.upload(job, [half], again=True)
    assert clara.store.blobs(job.payload_id)[half.name].read_bytes() == Path(half.path).read_bytes()


def test_uploads_go_in_parallel(clara: ClaraServer, platform: ClaraPlatform, tmp_path: Path) -> None:
    """Four that take a second each are done in much less than four."""
    clara.faults.add("Payloads/Upload", Fault.SLOW, seconds=0.8, times=4)
    begun = time.monotonic()
    platform.upload(created(clara, platform), files(tmp_path, 1, 1, 1, 1), again=False)
    assert time.monotonic() - begun < 2.4


FAILURES = (
    (Fault.HANG, "", UnavailableError),
    (Fault.CUT, "", UnavailableError),
    (Fault.GARBAGE, "", PlatformError),
    (Fault.HEADER, "", PlatformError),
    (Fault.REFUSE, "INTERNAL", PlatformError),
    (Fault.REFUSE, "UNAVAILABLE", UnavailableError),
    (Fault.REFUSE, "RESOURCE_EXHAUSTED", PlatformError),
    (Fault.REFUSE, "UNAUTHENTICATED", RefusedError),
)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: f"{failure[0].value}{failure[1]}")
def test_every_failure_of_every_call_is_an_error_of_ours(
    clara: ClaraServer, platform: ClaraPlatform, tmp_path: Path, failure: tuple[Fault, str, type[Exception]]
) -> None:
    """Within the deadline, and without patient data."""
    fault, code, expected = failure
    job = created(clara, platform)
    wanted = files(tmp_path, 10)
    platform.upload(job, wanted, again=False)
    more = [PayloadFile(name="dcm/PAT-1/more.dcm", path=wanted[0].path)]
    calls: dict[str, Callable[[], object]] = {
        "Jobs/Create": lambda: created(clara, platform),
        "Jobs/AddMetadata": lambda: platform.add_metadata(job, {"00100020": "PAT-1"}),
        "Jobs/Status": lambda: platform.find(Sought(job_id=job.job_id, platform_job_id=job.platform_job_id)),
        "Jobs/List": lambda: platform.find(Sought(job_id=job.job_id)),
        "Payloads/Details": lambda: platform.upload(job, wanted, again=True),
        "Payloads/Upload": lambda: platform.upload(job, more, again=False),
        "Payloads/Download": lambda: platform.download(job.payload_id, wanted[0].name, io.BytesIO()),
    }
    for method, call in calls.items():
        clara.faults.add(method, fault, code=code)
        begun = time.monotonic()
        with pytest.raises(expected) as caught:
            call()
        assert clara.faults.struck.pop().startswith(method)
        assert time.monotonic() - begun < TIMEOUT_SECONDS + 2.0
        assert "PAT-1" not in str(caught.value)
        assert "Clara Platform" in str(caught.value)
        wait_until_it_answers(platform)


def test_a_start_that_was_carried_out_is_no_failure(clara: ClaraServer, platform: ClaraPlatform) -> None:
    """The platform refuses to start it twice; that it was started is what counts."""
    job = created(clara, platform)
    platform.start(job)
    platform.start(job)
    clara.faults.add("Jobs/Start", Fault.REFUSE)
    other = created(clara, platform)
    with pytest.raises(PlatformError):
        platform.start(other)


def test_what_is_given_up_is_canceled_once(clara: ClaraServer, platform: ClaraPlatform) -> None:
    job = created(clara, platform)
    for _ in range(2):
        platform.cancel(Sought(job_id=job.job_id))
    platform.cancel(Sought(job_id="unknown"))
    assert clara.store.job(job.platform_job_id)["status"] == jobs_pb2.JOB_STATUS_CANCELED
    assert clara.faults.count("Jobs/Cancel") == 1


def test_an_absent_platform_comes_back(tmp_path: Path, stopping: threading.Event) -> None:
    with ClaraServer(tmp_path / "clara") as clara:
        port = clara.port
    with opened(f"127.0.0.1:{port}", tmp_path, stopping, timeout_seconds=TIMEOUT_SECONDS) as platform:
        with pytest.raises(UnavailableError, match="UNAVAILABLE"):
            platform.find(Sought(job_id="x"))
        with ClaraServer(tmp_path / "clara", port):
            wait_until_it_answers(platform)


def test_no_such_file(clara: ClaraServer, platform: ClaraPlatform, tmp_path: Path) -> None:
    """On either side."""
    job = created(clara, platform)
    with pytest.raises(RefusedError, match="no such file"):
        platform.download(job.payload_id, "dcm/none", io.BytesIO())
    missing = PayloadFile(name="dcm/none", path=str(tmp_path / "none"))
    for again in (False, True):
        with pytest.raises(StorageError, match="not in the spool any more"):
            platform.upload(job, [missing], again=again)


def test_closing_ends_what_hangs(
    clara: ClaraServer, platform: ClaraPlatform, stopping: threading.Event, tmp_path: Path
) -> None:
    """A process that is to end does not wait for a platform."""
    platform._connection.timeout_seconds = 60.0
    clara.faults.add("Jobs/Status", Fault.HANG)
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            platform.find(Sought(job_id="x", platform_job_id="y"))
        except StepInterruptedError as error:
            caught.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    while not clara.faults.struck:
        stopping.wait(0.01)
    stopping.set()
    platform.close()
    asking.join(10)
    assert caught
    with pytest.raises(StepInterruptedError):
        platform.upload(PlatformJob(job_id="x", platform_job_id="y", payload_id="z"), files(tmp_path, 1), again=False)


def test_by_tls_both_sides_are_known(tmp_path: Path, stopping: threading.Event) -> None:
    """A certificate of an authority that is not trusted, none of ours, or no TLS at all: unreachable."""
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    server, client = ours.issue("127.0.0.1"), ours.issue("gateway")
    tls = f"{PLATFORM}.tls"
    good = (
        f"{tls}.enabled=true",
        f"{tls}.caFile={ours.file}",
        f"{tls}.certificateFile={client.file}",
        f"{tls}.keyFile={client.key_file}",
    )
    credentials = grpc.ssl_server_credentials(
        [(server.key_file.read_bytes(), server.file.read_bytes())], ours.file.read_bytes(), require_client_auth=True
    )
    with ClaraServer(tmp_path / "clara", credentials=credentials) as clara:
        asked = request(clara.store.add_pipeline("covid"))
        with opened(clara.endpoint, tmp_path, stopping, *good) as platform:
            job = platform.create(asked)
            platform.upload(job, files(tmp_path, 300_000), again=False)
            assert platform.find(Sought(job_id=asked.job_id)) == job
        for bad in ((), good[:2], (good[0],), (good[0], f"{tls}.caFile={theirs.file}", *good[2:])):
            opening = opened(clara.endpoint, tmp_path, stopping, *bad, timeout_seconds=TIMEOUT_SECONDS)
            with opening as platform, pytest.raises(UnavailableError):
                platform.find(Sought(job_id=asked.job_id))
    missing = (good[0], f"{tls}.caFile={tmp_path}/none.pem")
    with pytest.raises(ConfigurationError, match=r"none\.pem cannot be read"):
        opened(clara.endpoint, tmp_path, stopping, *missing).__enter__()
