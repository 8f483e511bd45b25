"""Reclaim deletes what is done with, and never anything else."""

import time
from pathlib import Path

import pytest

from actors.guardian.reclaim import Reclaimer
from protocol.ledger import Group, Instance, Job, Ledger, Reclaim, SealedShard, Submission
from protocol.spool import ShardWriter, Spool, new_association_id
from protocol.states import GroupState, InstanceState, JobState

HOUR_NS = 3600 * 10**9


class House:
    """A spool and a ledger with some groups in them."""

    def __init__(self, directory: Path) -> None:
        self.spool = Spool(directory / "spool")
        self.spool.create()
        self.ledger = Ledger(f"sqlite:///{directory / 'ledger.db'}")
        self.writer = ShardWriter(self.spool, "receiver")
        self.reclaimer = Reclaimer(self.ledger, self.spool, keep_seconds=60)

    def store(self, group: int | None, state: InstanceState = InstanceState.GROUPED) -> str:
        part = self.writer.open_part(new_association_id(), 1)
        Path(part.path).chmod(0o640)
        Path(part.path).write_bytes(b"x" * 100)
        self.writer.publish([part])
        texts = ("called_ae_title", "calling_ae_title", "host", "sop_class_uid", "sop_instance_uid", "boot",
                 "transfer_syntax_uid", "study_uid", "series_uid", "patient_id")  # fmt: skip
        Instance.insert(
            identifier=part.identifier, group_id=group, state=state, size=100, dataset_offset=0, stored_wall_ns=0,
            stored_boot_ns=0, **dict.fromkeys(texts, "x"),
        ).execute()  # fmt: skip
        return part.identifier

    def group(self, *jobs: JobState | None, closed_ago_ns: int = HOUR_NS) -> int:
        """A closed group with a job for each state; None is a job that no submission took over yet."""
        group = Group.create(
            ae_title="A", processor="aetitle", key_value=f"{time.time_ns()}", revision=0, state=GroupState.CLOSED,
            last_wall_ns=0, last_boot_ns=0, boot="", opened_ns=0, closed_ns=time.time_ns() - closed_ago_ns,
        ).group_id  # fmt: skip
        for number, state in enumerate(jobs):
            job = f"{group}-{number}"
            Job.create(
                job_id=job, group_id=group, ae_title="A", name=job, pipeline_id="p", priority="normal", source="A",
                instances=1, created_ns=0,
            )  # fmt: skip
            if state is not None:
                Submission.create(job_id=job, state=state, created_ns=0, updated_ns=0)
        return int(group)

    def holds(self, identifier: str) -> bool:
        return Path(self.spool.instance_path(identifier)).exists()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.mark.parametrize("jobs", [(JobState.COMPLETED,), (JobState.COMPLETED, JobState.DISCARDED), ()])
def test_what_every_job_has_or_a_person_gave_up_is_deleted(house: House, jobs: tuple[JobState, ...]) -> None:
    group = house.group(*jobs)
    identifiers = [house.store(group), house.store(group, InstanceState.SUPERSEDED)]
    freed = house.reclaimer.once()
    assert (freed.groups, freed.files, freed.bytes) == (1, 2, 200)
    assert not any(map(house.holds, identifiers))
    assert Reclaim.get_by_id(group).files == 2
    assert house.reclaimer.once().groups == 0


@pytest.mark.parametrize("state", [None, *(set(JobState) - {JobState.COMPLETED, JobState.DISCARDED})])
def test_what_one_job_may_still_need_is_kept(house: House, state: JobState | None) -> None:
    identifier = house.store(house.group(JobState.COMPLETED, state))
    assert house.reclaimer.once().files == 0
    assert house.holds(identifier)


def test_a_group_that_closed_just_now_is_kept_for_comparison_with_repeats(house: House) -> None:
    identifier = house.store(house.group(JobState.COMPLETED, closed_ago_ns=0))
    assert house.reclaimer.once().files == 0
    assert house.holds(identifier)


def test_open_groups_and_quarantine_are_kept(house: House) -> None:
    group = house.group(JobState.COMPLETED)
    Group.update(state=GroupState.OPEN).execute()
    kept = [house.store(group), house.store(None, InstanceState.QUARANTINED)]
    assert house.reclaimer.once().files == 0
    assert all(map(house.holds, kept))


def test_what_a_person_discarded_from_quarantine_is_deleted_once(house: House) -> None:
    identifier = house.store(None, InstanceState.DISCARDED)
    assert house.reclaimer.once().bytes == 100
    assert not house.holds(identifier)
    assert house.reclaimer.once().files == 0


def test_a_kill_between_files_and_ledger_is_made_good(house: House) -> None:
    group = house.group(JobState.COMPLETED)
    gone, left = house.store(group), house.store(group)
    Path(house.spool.instance_path(gone)).unlink()
    assert house.reclaimer.once().bytes == 100
    assert not house.holds(left)


def test_only_sealed_and_empty_shards_are_removed(house: House) -> None:
    kept = house.store(house.group(JobState.QUEUED))
    shard = kept.partition("/")[0]
    SealedShard.create(shard=shard, sealed_ns=0)
    (house.spool.instances / "empty-open-0001").mkdir()
    (house.spool.instances / "empty-sealed-0001").mkdir()
    SealedShard.create(shard="empty-sealed-0001", sealed_ns=0)
    assert house.reclaimer.remove_empty_shards() == 1
    assert sorted(path.name for path in house.spool.instances.iterdir()) == sorted([shard, "empty-open-0001"])
