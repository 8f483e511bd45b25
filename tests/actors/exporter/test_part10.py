"""What is read of a file before it is sent: its UIDs, and where its dataset begins; what cannot be sent."""

import random
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from actors.exporter.part10 import NotDicomError, read_file
from tests.samples import ENCODED_BY_DCMTK, convert, dataset_bytes, dataset_offset, make_study

DEFLATED = "1.2.840.10008.1.2.1.99"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (path,) = make_study(tmp_path / "study", "PAT-FILE", 1, rows=64).files.values()
    return path


@pytest.mark.parametrize("syntax", ENCODED_BY_DCMTK)
def test_every_transfer_syntax(tmp_path: Path, syntax: str) -> None:
    study = convert(make_study(tmp_path / "plain", "PAT-FILE", 1, rows=64), tmp_path / "other", syntax)
    ((uid, path),) = study.files.items()
    found = read_file(str(path))
    assert (found.sop_instance, found.transfer_syntax) == (uid, syntax)
    assert found.size - found.dataset_offset == len(dataset_bytes(path))
    if syntax != DEFLATED:  # which cannot be walked
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(NotDicomError, match="cut short"):
            read_file(str(path))


def test_files_of_others_are_all_read() -> None:
    """pydicom's own samples: what it reads without force, and finds UIDs in, is read here, too."""
    directory = Path(str(get_testdata_file("CT_small.dcm", download=False))).parent
    refused, seen = {}, 0
    for path in sorted(directory.glob("*.dcm")):
        try:
            dataset = pydicom.dcmread(path)
            uid = dataset.SOPInstanceUID or dataset.file_meta.MediaStorageSOPInstanceUID
            known = dataset.file_meta.TransferSyntaxUID
        except Exception:  # what pydicom cannot read either
            continue
        try:
            found = read_file(str(path))
        except NotDicomError as error:
            refused[path.name] = str(error)
            continue
        assert (found.sop_instance, found.transfer_syntax) == (uid, known), path
        seen += 1
    assert seen > 40
    assert set(refused) == {"MR_truncated.dcm", "rtplan_truncated.dcm"}


def test_every_cut_is_noticed(path: Path) -> None:
    data = path.read_bytes()
    for length in (*range(1, dataset_offset(data) + 1, 7), dataset_offset(data), len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(NotDicomError):
            read_file(str(path))


def test_random_bytes_are_no_reason_to_fail_otherwise(path: Path) -> None:
    chance = random.Random(5)
    data = path.read_bytes()[:3000]
    for _ in range(500):
        mutated = bytearray(data)
        for _ in range(chance.randrange(1, 8)):
            mutated[chance.randrange(128, len(data))] = chance.randrange(256)
        path.write_bytes(mutated)
        with pytest.raises(NotDicomError):
            read_file(str(path))


def test_the_dataset_decides_and_the_meta_group_stands_in(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    in_meta = str(dataset.file_meta.MediaStorageSOPInstanceUID)
    dataset.SOPInstanceUID = "1.2.3"
    dataset.save_as(path)
    assert read_file(str(path)).sop_instance == "1.2.3"
    del dataset.SOPInstanceUID
    dataset.save_as(path)
    assert read_file(str(path)).sop_instance == in_meta


@pytest.mark.parametrize(
    ("keyword", "value", "says"),
    [
        ("SOPInstanceUID", None, "no SOP Instance UID"),
        ("SOPClassUID", None, "no SOP Class UID"),
        ("SOPInstanceUID", "../../etc/passwd", "no valid UID"),
        ("SOPInstanceUID", "1.2 3", "no valid UID"),
    ],
)
def test_a_file_without_usable_uids(path: Path, keyword: str, value: str | None, says: str) -> None:
    uid = str(pydicom.dcmread(path)[keyword].value).encode()
    data = path.read_bytes()
    padded = uid + b"\0" * (len(uid) % 2)
    if value is None:
        data = data.replace(padded, b"\0" * len(padded))
    else:
        data = data.replace(padded, value.encode()[: len(padded)].ljust(len(padded), b"x"))
    path.write_bytes(data)
    with pytest.raises(NotDicomError, match=says):
        read_file(str(path))


def test_a_long_meta_group(tmp_path: Path, path: Path) -> None:
    dataset = pydicom.dcmread(path)
    dataset.file_meta.PrivateInformationCreatorUID = "1.2.3"
    dataset.file_meta.PrivateInformation = bytes(100_000)
    dataset.save_as(path, enforce_file_format=True)
    assert read_file(str(path)).dataset_offset > 100_000
    dataset.file_meta.PrivateInformation = bytes(2_000_000)
    dataset.save_as(path, enforce_file_format=True)
    with pytest.raises(NotDicomError, match="longer than anybody needs"):
        read_file(str(path))
