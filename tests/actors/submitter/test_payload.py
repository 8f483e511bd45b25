"""The files of a payload and their names."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.submitter import payload
from protocol.ledger import Instance, Job, Retrieval
from protocol.platforms.base import PayloadFile
from protocol.states import InstanceState
from tests.actors.platform.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("payload")) as world:
        yield world


def listed(world: World, group_id: int | None) -> list[PayloadFile]:
    return [file for page in payload.files(job(group_id), world.spool) for file in page]


def job(group_id: int | None) -> Job:
    return Job(job_id="a-job", group_id=group_id)


def test_files_are_named_by_patient_study_series_and_instance(world: World) -> None:
    files = listed(world, world.group(2))
    assert [file.name for file in files] == [f"dcm/PAT-1/1.2.3/1.2.3.4/1.2.3.4.{number}.dcm" for number in (1, 2)]
    assert all(Path(file.path).exists() for file in files)


def test_names_that_come_out_equal_are_told_apart_in_the_same_way_each_time(world: World) -> None:
    """Nothing that was acknowledged is dropped because a name was cleaned."""
    group_id = world.group(5)
    uids = ["1/2", "1:2", "1_2", "1_2-2", "1?2"]
    rows = list(Instance.select().where(Instance.group_id == group_id).order_by(Instance.identifier))
    for row, uid in zip(rows, uids, strict=True):
        Instance.update(sop_instance_uid=uid).where(Instance.identifier == row.identifier).execute()
    names = [file.name.rpartition("/")[2] for file in listed(world, group_id)]
    assert names == ["1_2.dcm", "1_2-2.dcm", "1_2-3.dcm", "1_2-2-2.dcm", "1_2-4.dcm"]
    assert listed(world, group_id) == listed(world, group_id)


def test_only_members_of_the_group_are_in_it(world: World) -> None:
    group_id = world.group(3)
    row = Instance.select().where(Instance.group_id == group_id).first()
    Instance.update(state=InstanceState.SUPERSEDED).where(Instance.identifier == row.identifier).execute()
    assert len(listed(world, group_id)) == 2


def test_what_was_retrieved_for_a_request_has_the_names_on_record(world: World) -> None:
    for path, name in (("dcm/1.4.dcm", "dcm/PAT-1/1.2/1.3/1.4.dcm"), ("ehr/patient-1.json", "ehr/patient-1.json")):
        Retrieval.create(job_id="a-job", path=path, name=name, size=1, source=0, retrieved_ns=1)
    files = listed(world, None)
    assert [file.name for file in files] == ["dcm/PAT-1/1.2/1.3/1.4.dcm", "ehr/patient-1.json"]
    assert files[0].path == f"{world.spool.requests}/a-job/dcm/1.4.dcm"


def test_many_come_in_pages(world: World) -> None:
    group_id = world.group(1001, size=4)
    assert [len(page) for page in payload.files(job(group_id), world.spool)] == [500, 500, 1]
