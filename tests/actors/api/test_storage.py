"""What holds the spool's space, over REST."""

from typing import Any

import httpx

from protocol.board import Intake
from protocol.ledger import Ledger, Reclaim
from protocol.states import GroupState, InstanceState, JobState, RunState
from tests.actors.api import rows
from tests.actors.api.surroundings import Surroundings
from tests.actors.launcher import wait_until

_number = iter(range(1, 1000))


def members(group_id: int, count: int, size: int = 1000, **columns: Any) -> None:
    """Instances of a group."""
    for _ in range(count):
        rows.instance(next(_number), group_id=group_id, size=size, **columns)


def closed(job: str, submission: JobState | None, run: RunState | None = None, **columns: Any) -> int:
    """A closed group with one job."""
    group = rows.group(key_value=job, **columns)
    rows.job(job, group_id=group)
    if submission is not None:
        rows.submission(job, submission)
    if run is not None:
        rows.run(job, run, kept_bytes=77 if run is RunState.SUCCEEDED else 0)
    return group


def held(rest: httpx.Client) -> dict[tuple[str, str], tuple[int, int]]:
    """The sums by AE title and reason."""
    found = rest.get("/api/storage").json()["holders"]
    return {(one["aeTitle"], one["what"]): (one["instances"], one["bytes"]) for one in found}


def test_every_reason_has_its_sum(running: Surroundings, ledger: Ledger) -> None:
    with ledger.transaction():
        members(rows.group(key_value="open", state=GroupState.OPEN, closed_ns=None), 2)
        members(closed("new", None), 1)
        members(closed("uploading", JobState.PAYLOAD_UPLOADING), 2)
        members(closed("waits", JobState.COMPLETED, RunState.PENDING), 3)
        done = closed("done", JobState.COMPLETED, RunState.SUCCEEDED)
        members(done, 1)
        members(done, 1, state=InstanceState.REPEATED)
        members(rows.group(key_value="no jobs"), 1, size=5)
        # One of its two jobs has faulted: that is what a person has to see to.
        half = closed("half", JobState.COMPLETED, RunState.RUNNING)
        rows.job("half-faulted", group_id=half)
        rows.submission("half-faulted", JobState.FAULTED)
        members(half, 1, size=9000, called_ae_title="OTHER")
        rows.instance(next(_number), state=InstanceState.QUARANTINED, study_uid="")
        rows.instance(next(_number), state=InstanceState.DISCARDED, study_uid="")
        gone = closed("gone", JobState.COMPLETED)
        members(gone, 6)
        Reclaim.create(group_id=gone, files=6, bytes=6000, reclaimed_ns=rows.START)
        members(closed("past", JobState.COMPLETED, state=GroupState.RECLAIMED), 4, history=True)
        for number, (job, run) in enumerate(
            [
                (JobState.CREATED, None),
                (JobState.FAULTED, None),
                (JobState.COMPLETED, RunState.RUNNING),
                (JobState.COMPLETED, RunState.SUCCEEDED),
                (JobState.COMPLETED, RunState.FAILED),
            ]
        ):
            rows.submission(f"request-{number}", job)
            if run is not None:
                rows.run(f"request-{number}", run, keeps_input=run == RunState.FAILED)
            rows.retrieval(f"request-{number}", size=10 + number)

    wanted = {
        ("COVIDAET", "waiting for its group"): (2, 2000),
        ("COVIDAET", "queued"): (3, 3000),
        ("COVIDAET", "waiting for its pipeline"): (3, 3000),
        ("COVIDAET", "kept for repeats"): (3, 2005),
        ("OTHER", "faulted"): (1, 9000),
        ("COVIDAET", "quarantined"): (1, 1000),
        ("COVIDAET", "discarded"): (1, 1000),
        ("COVIDAET", "results of pipelines"): (1, 77),
        ("(inference requests)", "waiting for its retrieval"): (1, 10),
        ("(inference requests)", "faulted"): (1, 11),
        ("(inference requests)", "waiting for its pipeline"): (1, 12),
        ("(inference requests)", "its pipeline failed"): (1, 14),
    }
    wait_until(lambda: held(running.rest) == wanted, "sums that are not of the test before")
    sizes = [one["bytes"] for one in running.rest.get("/api/storage").json()["holders"]]
    assert sizes == sorted(sizes, reverse=True)


def test_the_guardians_words_are_always_fresh(running: Surroundings) -> None:
    for intake, state in ((Intake.PAUSED, "paused"), (Intake.OPEN, "open")):
        running.board.set_storage(intake, 123, 456, is_short=False)
        answer = running.rest.get("/api/STORAGE").json()
        assert answer.keys() == {"state", "freeBytes", "reservedBytes", "holders"}
        assert (answer["state"], answer["freeBytes"], answer["reservedBytes"]) == (state, 123, 456)


def test_nothing_is_held(running: Surroundings) -> None:
    wait_until(lambda: held(running.rest) == {}, "an empty spool")
