"""What a retrieved file is, told by its header."""

import zlib
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from actors.retriever.identity import Identity, NotDicomError, identify
from tests.samples import convert, dataset_offset, make_study

TAGS = ("00080060", "0020000D", "00081030")


def sample(directory: Path) -> tuple[Path, Identity]:
    study = make_study(directory, "PAT-IDENTITY", 1, rows=64)
    (uid, path), *_ = study.files.items()
    series = str(pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID)
    identity = identify(path, TAGS)
    assert identity.attributes == {tag: value for tag, value in identity.attributes.items() if tag in TAGS and value}
    assert identity.attributes["00080060"] == "CT"
    assert identity.attributes["0020000D"] == study.uid
    assert (identity.sop_instance_uid, identity.study_uid, identity.series_uid) == (uid, study.uid, series)
    assert identity.patient_id == "PAT-IDENTITY"
    return path, identity


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        "1.2.840.10008.1.2.5",
        "1.2.840.10008.1.2.4.70",
    ],
)
def test_every_transfer_syntax_says_the_same(tmp_path: Path, syntax: str) -> None:
    study = make_study(tmp_path / "a", "PAT-IDENTITY", 1, rows=64)
    (uid, path), *_ = convert(study, tmp_path / "b", syntax).files.items()
    found = identify(path, TAGS)
    assert found == identify(study.files[uid], TAGS)
    assert (found.sop_instance_uid, found.study_uid, found.patient_id) == (uid, study.uid, "PAT-IDENTITY")


def test_a_deflated_dataset_is_not_inflated_beyond_its_beginning(tmp_path: Path) -> None:
    """A quarter of a gigabyte of zeros in a megabyte: what identifies it is read, and memory stays."""
    path, identity = sample(tmp_path / "a")
    data = path.read_bytes()
    body = data[dataset_offset(data) :]
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "bomb.dcm", enforce_file_format=True)
    head = (tmp_path / "bomb.dcm").read_bytes()
    deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    with (tmp_path / "bomb.dcm").open("wb") as file:
        file.write(head[: dataset_offset(head)])
        file.write(deflate.compress(body))
        for _ in range(64):
            file.write(deflate.compress(bytes(4 * 1024 * 1024)))
        file.write(deflate.flush())
    assert (tmp_path / "bomb.dcm").stat().st_size < 8 * 1024 * 1024
    assert identify(tmp_path / "bomb.dcm", TAGS) == identity


def test_a_file_that_ends_after_its_identifiers_is_still_one(tmp_path: Path) -> None:
    path, identity = sample(tmp_path / "a")
    path.chmod(0o640)
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - 64)
    assert identify(path, TAGS) == identity


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no DICOM file"),
        (b"<html>not found</html>", "no DICOM file"),
        (bytes(128) + b"DICM", "cannot be read|no UID"),
        (bytes(128) + b"DICM" + b"\xff" * 500, "cannot be read|no UID"),
    ],
)
def test_what_is_no_dicom_file_is_told(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(NotDicomError, match=reason):
        identify(tmp_path / "file", TAGS)


@pytest.mark.parametrize("uid", ["", "..", "../../etc/passwd", "x"])
def test_an_identifier_that_could_leave_its_place_is_none(tmp_path: Path, uid: str) -> None:
    path, _ = sample(tmp_path / "a")
    dataset = pydicom.dcmread(path)
    with pydicom.config.disable_value_validation():
        dataset.SOPInstanceUID = uid
        dataset.save_as(tmp_path / "bad.dcm")
    with pytest.raises(NotDicomError, match="00080018 is no UID"):
        identify(tmp_path / "bad.dcm", ())
