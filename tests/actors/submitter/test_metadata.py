"""What a platform is told about a job."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.submitter import metadata
from protocol.ledger import Instance, Job
from protocol.states import InstanceState
from tests.actors.platform.world import World

NAME, STUDY_UID = "00100010", "0020000D"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("metadata")) as world:
        yield world


def attributes(world: World, *values: dict[str, str], arrival: tuple[int, ...] | None = None) -> int:
    """A group whose instances have these attributes, stored at these moments."""
    group_id = world.group(len(values))
    rows = list(Instance.select().where(Instance.group_id == group_id).order_by(Instance.identifier))
    with world.ledger.transaction():
        for number, (row, value) in enumerate(zip(rows, values, strict=True)):
            Instance.update(attributes=value, stored_wall_ns=arrival[number] if arrival else number).where(
                Instance.identifier == row.identifier
            ).execute()
    return group_id


def test_a_job_is_created_with_its_source_size_and_uuid() -> None:
    job = Job(job_id="5a3c", group_id=1, source="AE (aetitle)", instances=400)
    assert metadata.of_job(job) == {"Source": "AE (aetitle)", "Instances": "400", "DicomAdapterJobId": "5a3c"}


def test_one_value_has_the_tags_name_several_are_numbered_in_the_order_first_seen(world: World) -> None:
    """As the original documents it: one patient, three studies."""
    group_id = attributes(world, *({NAME: "DOE^JANE", STUDY_UID: study} for study in ("1.9", "1.1", "1.9", "1.5")))
    assert metadata.of_instances(Job(group_id=group_id), (NAME, STUDY_UID, "00080060")) == {
        NAME: "DOE^JANE",
        f"{STUDY_UID}-0": "1.9",
        f"{STUDY_UID}-1": "1.1",
        f"{STUDY_UID}-2": "1.5",
    }


def test_the_order_is_that_of_arrival_whatever_the_files_are_called(world: World) -> None:
    group_id = attributes(world, {NAME: "B"}, {NAME: "A"}, {NAME: "B"}, arrival=(30, 20, 10))
    assert metadata.of_instances(Job(group_id=group_id), (NAME,)) == {f"{NAME}-0": "B", f"{NAME}-1": "A"}


def test_empty_values_and_other_instances_say_nothing(world: World) -> None:
    """Absent, empty, or superseded: none of it is a value of the job."""
    group_id = attributes(world, {NAME: ""}, {}, {NAME: "OLD"})
    last = Instance.select().where(Instance.group_id == group_id).order_by(Instance.identifier.desc()).first()
    Instance.update(state=InstanceState.SUPERSEDED).where(Instance.identifier == last.identifier).execute()
    assert metadata.of_instances(Job(group_id=group_id), (NAME,)) == {}


def test_distinct_values_are_found_over_pages(world: World) -> None:
    """More instances than a page of the ledger has; values that are equal only when cut stay distinct."""
    long = "x" * 300
    group_id = attributes(world, *({NAME: f"{long}{number // 400}"} for number in range(1201)))
    found = metadata.of_instances(Job(group_id=group_id), (NAME,))
    assert found == {f"{NAME}-{number}": "x" * 256 for number in range(4)}


@given(st.text())
def test_a_value_is_cut_to_256_bytes_at_a_character(value: str) -> None:
    shortened = metadata.cut(value)
    assert value.startswith(shortened)
    assert len(shortened.encode()) <= 256
    if shortened != value:
        following = value[len(shortened)]
        assert len((shortened + following).encode()) > 256


@given(st.text(alphabet="é€𝄞a", min_size=100, max_size=300))
def test_long_values_of_wide_characters_are_used_to_the_last_byte_that_fits(value: str) -> None:
    shortened = metadata.cut(value)
    assert shortened == value or 253 <= len(shortened.encode()) <= 256


def test_a_lone_surrogate_is_no_reason_to_fail() -> None:
    assert metadata.cut("a\ud800b") == "a?b"
