"""What was retrieved for inference requests: counted, kept while a job or a run needs it, deleted afterwards."""

import os
import time
from pathlib import Path

import pytest

from actors.guardian.usage import Usage
from protocol.board import Board
from protocol.ledger import InferenceRequest, Run, Submission
from protocol.spool import ShardWriter, new_association_id
from protocol.states import JobState, RequestState, RunState
from tests.actors.guardian.house import SIZE, House
from tests.actors.guardian.test_orphans import age, removed


def request(house: House, job: str, state: RequestState, submission: JobState | None) -> Path:
    """A request with two files; returns its directory."""
    InferenceRequest.create(
        transaction_id=job,
        job_id=job,
        job_name=job,
        pipeline_id="p",
        priority="normal",
        digest="",
        request="",
        outputs="",
        state=state,
        created_ns=0,
        updated_ns=0,
    )
    if submission is not None:
        Submission.create(job_id=job, state=submission, created_ns=0, updated_ns=0)
    return files(house, job)


def files(house: House, job: str) -> Path:
    home = house.spool.requests / job
    for kind, name in (("dcm", "1.2.dcm"), ("ehr", "patient-1.json")):
        (home / kind).mkdir(parents=True)
        (home / kind / name).write_bytes(b"x" * SIZE)
    return home


def arrival(house: House) -> Path:
    writer = ShardWriter(house.spool.arrivals(), "receiver")
    part = writer.open_part(new_association_id(), 1)
    os.write(part.fd, b"x" * SIZE)
    writer.publish([part])
    writer.close()
    return Path(house.spool.arrivals().instance_path(part.identifier))


@pytest.mark.parametrize(
    ("state", "submission", "run", "goes"),
    [
        (RequestState.COMPLETED, JobState.COMPLETED, RunState.SUCCEEDED, True),
        (RequestState.COMPLETED, JobState.COMPLETED, None, True),
        (RequestState.FAILED, JobState.DISCARDED, RunState.CANCELED, True),
        (RequestState.COMPLETED, JobState.COMPLETED, RunState.RUNNING, False),
        (RequestState.COMPLETED, JobState.FAULTED, None, False),
        (RequestState.COMPLETED, JobState.PAYLOAD_UPLOADING, RunState.CREATED, False),
        (RequestState.IN_PROCESS, JobState.CREATED, RunState.CREATED, False),
        (RequestState.IN_PROCESS, JobState.DISCARDED, RunState.CANCELED, False),
        (RequestState.QUEUED, None, RunState.CREATED, False),
    ],
)
def test_files_stay_as_long_as_they_are_needed(
    house: House, state: RequestState, submission: JobState | None, run: RunState | None, goes: bool
) -> None:
    home = request(house, "job", state, submission)
    if run is not None:
        house.run("job", run)
    freed = house.reclaim()
    assert home.exists() is not goes
    assert (freed.files, freed.bytes) == ((2, 2 * SIZE) if goes else (0, 0))
    assert house.reclaim().files == 0


def test_files_stay_while_they_may_be_read_again(house: House) -> None:
    home = request(house, "job", RequestState.COMPLETED, JobState.COMPLETED)
    house.run("job", RunState.FAILED)
    Run.update(keeps_input=True).execute()
    assert (house.reclaim().files, home.exists()) == (0, True)
    Run.update(keeps_input=False).execute()
    assert (house.reclaim().files, home.exists()) == (2, False)


def test_what_belongs_to_no_request_is_an_orphan_when_it_is_old(house: House) -> None:
    kept = request(house, "known", RequestState.IN_PROCESS, JobState.CREATED)
    lost = files(house, "lost")
    young = files(house, "young")
    incoming = house.spool.requests / ".incoming"
    incoming.mkdir()
    for each in (kept, lost, incoming):
        age(each)
    assert removed(house) == {"files of requests that are not on record": 2}
    assert not lost.exists()
    assert all(each.exists() for each in (kept, young, incoming))


def test_arrivals_that_no_move_waits_for_go_in_time(house: House) -> None:
    old, young = arrival(house), arrival(house)
    age(old)
    assert removed(house) == {"arrivals that nobody waits for": 1}
    assert not old.exists()
    assert young.exists()


def test_all_of_it_is_counted(house: House) -> None:
    request(house, "job", RequestState.IN_PROCESS, JobState.CREATED)
    arrival(house)
    (house.spool.requests / "job" / "000001.part").write_bytes(b"x" * SIZE)
    for path in (*house.spool.requests.rglob("*"), *house.spool.arrivals().instances.rglob("*")):
        os.utime(path, (time.time() - 10, time.time() - 10))
    board = Board.create()
    board.add_retrieved(1000)  # before the guardian began: found on disk, or deleted
    usage = Usage(board)
    usage.find(house.spool)
    assert usage.bytes == 3 * SIZE
    board.add_retrieved(7)
    assert usage.bytes == 3 * SIZE + 7
    usage.deleted(SIZE)
    assert usage.bytes == 2 * SIZE + 7
