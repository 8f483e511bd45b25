"""What was understood before is not taken apart again, and that shows in nothing but the time it takes."""

from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings

from actors.extractor.familiar import Familiar, Familiars
from actors.extractor.header import MEDIA_SOP_INSTANCE_UID, SOP_INSTANCE_UID, Wanted, describe
from tests.actors.extractor.encoding import IMPLICIT, dataset, element, part10
from tests.actors.extractor.test_oracle import damaged
from tests.samples import make_study

_WANTED = Wanted(("00080020", "00100020", "00101010", "0020000D", "00280010"))


@pytest.fixture
def familiar() -> Familiar:
    return Familiar()


def check(path: Path, familiar: Familiar) -> None:
    """With what is known of other headers, a header reads as without."""
    assert describe(str(path), _WANTED, familiar) == describe(str(path), _WANTED)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged())
def test_damaged_files_one_after_another(tmp_path: Path, familiar: Familiar, case: tuple[str, bytes]) -> None:
    syntax, body = case
    path = tmp_path / "damaged.dcm"
    path.write_bytes(part10(body, syntax))
    check(path, familiar)


def test_files_of_any_kind_one_after_another(familiar: Familiar) -> None:
    for _ in range(2):
        for path in sorted((Path(pydicom.__file__).parent / "data").rglob("*.dcm")):
            check(path, familiar)


def test_a_series(tmp_path: Path, familiar: Familiar) -> None:
    study = make_study(tmp_path, "PAT-1", 5, rows=64)
    for uid, path in study.files.items():
        check(path, familiar)
        header = describe(str(path), _WANTED, familiar)
        assert (header.values[SOP_INSTANCE_UID], header.meta[MEDIA_SOP_INSTANCE_UID]) == (uid, uid)
        assert header.problem == ""
    assert familiar.runs
    assert familiar.after


@pytest.mark.parametrize("length", [1, 9, 10, 64])
def test_a_sop_instance_uid_of_another_length(tmp_path: Path, familiar: Familiar, length: int) -> None:
    first, other = tmp_path / "first.dcm", tmp_path / "other.dcm"
    first.write_bytes(part10(dataset()))
    uid = "1" * length
    other.write_bytes(part10(dataset(changed={SOP_INSTANCE_UID: uid}), sop_instance=uid))
    for path in (first, other, first):
        check(path, familiar)
    assert describe(str(other), _WANTED, familiar).problem == ""


def test_zeros_that_fill_the_rest_are_no_run(tmp_path: Path, familiar: Familiar) -> None:
    path = tmp_path / "filled.dcm"
    for body in (dataset() + bytes(40), dataset() + bytes(40) + element(0x00280010, "US", b"\1\0")):
        path.write_bytes(part10(body))
        check(path, familiar)


def test_the_same_bytes_in_another_transfer_syntax(tmp_path: Path, familiar: Familiar) -> None:
    path = tmp_path / "instance.dcm"
    for syntax in (IMPLICIT, "1.2.840.10008.1.2.1", IMPLICIT):
        path.write_bytes(part10(dataset(syntax=IMPLICIT), syntax))
        check(path, familiar)


def test_only_so_many_associations_are_remembered() -> None:
    familiars = Familiars()
    first = familiars.of("shard/a-000001")
    assert familiars.of("other/a-000002") is first
    for number in range(64):
        familiars.of(f"shard/b{number}-000001")
    assert familiars.of("shard/a-000003") is not first


def test_a_file_that_ends_anywhere_behind_another_of_its_association(tmp_path: Path, familiar: Familiar) -> None:
    whole = tmp_path / "whole.dcm"
    whole.write_bytes(part10(dataset(), IMPLICIT))
    check(whole, familiar)
    for length in range(len(whole.read_bytes())):
        cut = tmp_path / "cut.dcm"
        cut.write_bytes(whole.read_bytes()[:length])
        check(cut, familiar)
