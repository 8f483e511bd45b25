"""The look at a dataset's first elements."""

from io import BytesIO

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset

from actors.receiver.first_elements import ExpectedUids, Verdict
from actors.receiver.first_elements import compare as compare_bytes
from protocol.dimse.elements import EXPLICIT_LITTLE, Encoding, encoding_of
from tests.actors.receiver import raw

BIG = "1.2.840.10008.1.2.2"


def written(syntax: str, uid: str = "1.2.3", sop_class: str = raw.CT_IMAGE) -> bytes:
    """The first elements of a dataset, with some before the UIDs, as pydicom writes them."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.InstanceCreationDate = "20200101"
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = uid
    dataset.StudyDate = "20200101"
    out = DicomIO(BytesIO())
    out.is_little_endian = syntax != BIG
    out.is_implicit_VR = syntax == raw.IMPLICIT
    write_dataset(out, dataset)
    out.seek(0)
    data: bytes = out.read()
    return data


def compare(head: bytes, encoding: Encoding, sop_class: str, sop_instance: str) -> Verdict:
    return compare_bytes(head, encoding, sop_class.encode(), sop_instance.encode())


def encoding(syntax: str) -> Encoding:
    found = encoding_of(syntax)
    assert found
    return found


@pytest.mark.parametrize("syntax", [raw.IMPLICIT, raw.EXPLICIT, BIG])
class TestUncompressed:
    def test_equal_uids_match(self, syntax: str) -> None:
        assert compare(written(syntax), encoding(syntax), raw.CT_IMAGE, "1.2.3") is Verdict.MATCH

    def test_another_instance_is_seen(self, syntax: str) -> None:
        assert compare(written(syntax), encoding(syntax), raw.CT_IMAGE, "1.2.4") is Verdict.MISMATCH

    def test_another_class_is_seen(self, syntax: str) -> None:
        assert compare(written(syntax), encoding(syntax), raw.MR_IMAGE, "1.2.3") is Verdict.MISMATCH

    def test_every_shorter_beginning_asks_for_more_or_knows(self, syntax: str) -> None:
        data = written(syntax)
        verdicts = [compare(data[:n], encoding(syntax), raw.CT_IMAGE, "1.2.3") for n in range(len(data) + 1)]
        known = verdicts.index(Verdict.MATCH)
        assert set(verdicts[:known]) == {Verdict.TOO_SHORT}
        assert set(verdicts[known:]) == {Verdict.MATCH}


def test_a_dataset_without_the_uids_passes() -> None:
    data = b"\x10\0\x20\0LO\x02\0P1"
    assert compare(data, EXPLICIT_LITTLE, raw.CT_IMAGE, "1.2.3") is Verdict.MATCH


def test_a_sequence_of_undefined_length_before_them_passes() -> None:
    data = b"\x08\0\x06\0SQ\0\0\xff\xff\xff\xff"
    assert compare(data, EXPLICIT_LITTLE, raw.CT_IMAGE, "1.2.3") is Verdict.MATCH


@pytest.mark.parametrize(
    ("syntax", "is_known"),
    [
        ("1.2.840.10008.1.2.4.50", True),
        ("1.2.840.10008.1.2.5", True),
        ("1.2.840.10008.1.2.1.99", False),  # deflated
        ("1.2.840.10008.1.2.4.95", False),  # referenced, deflated
        ("1.2.840.113619.5.2", False),  # private
        ("1.2.840.10008.1.2.77", False),  # of a later standard
        ("1.2.3", False),
    ],
)
def test_which_syntaxes_are_looked_into(syntax: str, is_known: bool) -> None:
    assert (encoding_of(syntax) is EXPLICIT_LITTLE) is is_known
    assert is_known or encoding_of(syntax) is None


@given(st.binary(max_size=400))
def test_garbage_gives_some_verdict(data: bytes) -> None:
    for syntax in (raw.IMPLICIT, raw.EXPLICIT, BIG):
        assert compare(data, encoding(syntax), raw.CT_IMAGE, "1.2.3") in Verdict


def test_pydicom_samples_match_themselves() -> None:
    for name in ("CT_small.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm"):
        path = str(get_testdata_file(name, download=False))
        read = pydicom.dcmread(path)
        with open(path, "rb") as file:
            data = file.read()[144 + read.file_meta.FileMetaInformationGroupLength :][:4096]
        syntax = read.file_meta.TransferSyntaxUID
        assert compare(data, encoding(syntax), read.SOPClassUID, read.SOPInstanceUID) is Verdict.MATCH
        assert compare(data, encoding(syntax), read.SOPClassUID, "1.9") is Verdict.MISMATCH


@pytest.mark.parametrize("syntax", [raw.IMPLICIT, raw.EXPLICIT, BIG])
@pytest.mark.parametrize("uid", ["1.2.3", "1.2.34"])
def test_where_both_uids_are_expected(syntax: str, uid: str) -> None:
    expected = ExpectedUids(encoding(syntax), raw.CT_IMAGE.encode())
    assert expected.stand_in(written(syntax, uid), uid.encode())
    assert not expected.stand_in(written(syntax, uid), b"1.2.5")
    assert not expected.stand_in(written(syntax, uid, raw.MR_IMAGE), uid.encode())
    assert not expected.stand_in(written(syntax, uid)[:60], uid.encode())
