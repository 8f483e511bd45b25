"""Reclaim deletes what is done with, and never anything else."""

from pathlib import Path

import pytest

from actors.guardian.reclaim import Freed, Reclaimer, remove_empty_shards
from protocol.ledger import Group, Instance, Reclaim, Run, SealedShard
from protocol.states import RUN_UNDER_WAY, GroupState, InstanceState, JobState, RunState
from tests.actors.guardian.house import House


@pytest.mark.parametrize("jobs", [(JobState.COMPLETED,), (JobState.COMPLETED, JobState.DISCARDED), ()])
def test_what_every_job_has_or_a_person_gave_up_is_deleted(house: House, jobs: tuple[JobState, ...]) -> None:
    group = house.group(*jobs)
    identifiers = [house.store(group), house.store(group, InstanceState.SUPERSEDED)]
    assert house.reclaim() == Freed(groups=1, files=2, bytes=200)
    assert not any(map(house.holds, identifiers))
    assert Reclaim.get_by_id(group).files == 2
    assert house.reclaim() == Freed()


@pytest.mark.parametrize("state", [None, *(set(JobState) - {JobState.COMPLETED, JobState.DISCARDED})])
def test_what_one_job_may_still_need_is_kept(house: House, state: JobState | None) -> None:
    identifier = house.store(house.group(JobState.COMPLETED, state))
    assert house.reclaim() == Freed()
    assert house.holds(identifier)


@pytest.mark.parametrize("state", RunState)
def test_what_a_run_may_still_read_is_kept(house: House, state: RunState) -> None:
    identifier = house.store(house.group(JobState.COMPLETED, run=state))
    house.reclaim()
    assert house.holds(identifier) is (state in RUN_UNDER_WAY)


def test_what_a_run_may_read_again_is_kept(house: House) -> None:
    identifier = house.store(house.group(JobState.COMPLETED, run=RunState.FAILED))
    Run.update(keeps_input=True).execute()
    assert house.reclaim() == Freed()
    Run.update(keeps_input=False).execute()
    assert house.reclaim() == Freed(groups=1, files=1, bytes=100)
    assert not house.holds(identifier)


def test_a_group_that_closed_just_now_is_kept_for_comparison_with_repeats(house: House) -> None:
    identifier = house.store(house.group(JobState.COMPLETED, closed_ago_ns=0))
    assert house.reclaim() == Freed()
    assert house.holds(identifier)


def test_a_group_that_closed_before_the_clock_was_set_back_is_not_kept_for_that(house: House) -> None:
    """Otherwise its files would stay for as long as the clock was ahead."""
    identifier = house.store(house.group(JobState.COMPLETED, closed_ago_ns=-7200 * 1_000_000_000))
    house.reclaim()
    assert not house.holds(identifier)


def test_open_groups_quarantine_and_what_is_not_on_record_are_kept(house: House) -> None:
    group = house.group(JobState.COMPLETED)
    Group.update(state=GroupState.OPEN).execute()
    kept = [house.store(group), house.store(None, InstanceState.QUARANTINED), house.file()]
    assert house.reclaim() == Freed()
    assert all(map(house.holds, kept))


def test_what_a_person_discarded_from_quarantine_is_deleted_once(house: House) -> None:
    identifier = house.store(None, InstanceState.DISCARDED)
    assert house.reclaim() == Freed(files=1, bytes=100)
    assert not house.holds(identifier)
    assert house.reclaim() == Freed()


def test_a_kill_between_files_and_ledger_is_made_good(house: House) -> None:
    group = house.group(JobState.COMPLETED)
    gone, left = house.store(group), house.store(group)
    Path(house.spool.instance_path(gone)).unlink()
    assert house.reclaim() == Freed(groups=1, files=1, bytes=100)
    assert not house.holds(left)


def test_a_repeat_that_comes_on_record_meanwhile_goes_along_the_next_time(house: House) -> None:
    group = house.group(JobState.COMPLETED)
    house.store(group)
    steps = Reclaimer(house.ledger, house.spool, 60, house.failures.append).steps()
    assert next(steps).files == 1
    late = house.store(group, InstanceState.REPEATED)
    assert sum(steps, Freed()) == Freed()
    assert Reclaim.get_or_none(group_id=group) is None
    assert house.reclaim() == Freed(groups=1, files=1, bytes=100)
    assert not house.holds(late)


def test_a_file_that_cannot_be_deleted_holds_nobody_else_up(house: House) -> None:
    stuck, free = house.group(JobState.COMPLETED), house.group(JobState.COMPLETED)
    identifier, others = house.store(stuck), [house.store(stuck), house.store(free)]
    path = Path(house.spool.instance_path(identifier))
    path.unlink()
    path.mkdir()  # which unlink() refuses, for root too
    assert house.reclaim() == Freed(groups=1, files=2, bytes=200)
    assert not any(map(house.holds, others))
    assert [type(error) for error in house.failures] == [IsADirectoryError]
    assert Reclaim.get_or_none(group_id=stuck) is None
    path.rmdir()
    assert house.reclaim().groups == 1


def test_many_groups_in_one_round(house: House) -> None:
    with house.ledger.transaction():
        kept = house.store(house.group(JobState.QUEUED))
        for _ in range(120):
            house.store(house.group(JobState.COMPLETED))
    assert house.reclaim() == Freed(groups=120, files=120, bytes=12_000)
    assert house.holds(kept)


def test_a_large_group_takes_several_steps(house: House) -> None:
    group = house.group(JobState.COMPLETED)
    with house.ledger.transaction():
        for _ in range(501):
            house.store(group)
    steps = list(Reclaimer(house.ledger, house.spool, 60, house.failures.append).steps())
    assert sum(step.files for step in steps) == 501
    assert max(step.files for step in steps) == 50  # its heart beats between two of them
    assert Instance.select().count() == 501  # their rows are the processor's


def test_only_sealed_and_empty_shards_are_removed(house: House) -> None:
    kept = house.store(house.group(JobState.QUEUED))
    shard = kept.partition("/")[0]
    SealedShard.create(shard=shard, sealed_ns=0)
    (house.spool.instances / "empty-open-0001").mkdir()
    (house.spool.instances / "empty-sealed-0001").mkdir()
    SealedShard.create(shard="empty-sealed-0001", sealed_ns=0)
    assert remove_empty_shards(house.spool) == 1
    assert sorted(path.name for path in house.spool.instances.iterdir()) == sorted([shard, "empty-open-0001"])
