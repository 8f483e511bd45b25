"""Elements of received commands and datasets as texts for the log, whatever a peer sends."""

from pathlib import Path

import pydicom
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from protocol.dimse.elements import EXPLICIT_BIG, EXPLICIT_LITTLE, HEAD_BYTES, IMPLICIT_LITTLE, Encoding, elements
from tests.actors.receiver.raw import echo_rq
from tests.samples import dataset_bytes

_ENCODINGS = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG)


def told(name: str, encoding: Encoding) -> list[str]:
    """The elements of one of pydicom's files."""
    directory = Path(str(get_testdata_file("CT_small.dcm", download=False))).parents[1]
    (path,) = directory.glob(f"*_files/{name}")
    return list(elements(dataset_bytes(path)[:HEAD_BYTES], encoding))


def test_a_command_set() -> None:
    assert list(elements(echo_rq(), IMPLICIT_LITTLE)) == [
        "0000,0002 UI Affected SOP Class UID: 1.2.840.10008.1.1",
        "0000,0100 US Command Field: 48",
        "0000,0110 US Message ID: 1",
        "0000,0800 US Command Data Set Type: 257",
    ]


def test_a_dataset_up_to_its_pixels() -> None:
    """Text, numbers, private elements, sequences with their items' elements; nothing of the pixels."""
    found = told("CT_small.dcm", EXPLICIT_LITTLE)
    assert "0010,0010 PN Patient's Name: CompressedSamples^CT1" in found
    assert "0028,0010 US Rows: 128" in found
    assert "0010,1002 SQ Other Patient IDs Sequence: sequence" in found
    assert ">0010,0020 LO Patient ID: ABCD1234" in found
    assert any(line.startswith("0043,") for line in found)
    assert not any(line.startswith("7FE0") for line in found)


def test_elements_after_a_sequence_are_those_of_the_top_level_again() -> None:
    found = told("rtplan.dcm", IMPLICIT_LITTLE)
    assert "300C,0060 SQ Referenced Structure Set Sequence: sequence" in found
    assert "300E,0002 CS Approval Status: UNAPPROVED" in found
    assert {len(line) - len(line.lstrip(">")) for line in found} == {0, 1, 2, 3}


def test_big_endian() -> None:
    assert "0008,0060 CS Modality: US" in told("ExplVR_BigEnd.dcm", EXPLICIT_BIG)


def test_names_in_their_character_sets() -> None:
    assert "0010,0010 PN Patient's Name: Buc^Jérôme" in told("chrFren.dcm", EXPLICIT_LITTLE)
    assert "0010,0010 PN Patient's Name: Yamada^Tarou=山田^太郎=やまだ^たろう" in told("chrH31.dcm", EXPLICIT_LITTLE)


def test_long_values_are_cut_and_binary_ones_counted() -> None:
    dataset = pydicom.Dataset()
    dataset.ImageComments = "x" * 500
    dataset.add_new(0x00091001, "OB", b"\0" * 100)
    buffer = pydicom.filebase.DicomBytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=False, little_endian=True, enforce_file_format=False)
    found = list(elements(buffer.getvalue(), EXPLICIT_LITTLE))
    assert found == ["0009,1001 OB: 100 bytes", f"0020,4000 LT Image Comments: {'x' * 64}…"]


@given(data=st.binary(max_size=400), encoding=st.sampled_from(_ENCODINGS))
def test_any_bytes_are_no_reason_to_fail(data: bytes, encoding: Encoding) -> None:
    assert sum(map(len, elements(data, encoding))) < 200 * len(data) + 1


def test_a_nest_of_sequences_does_not_recurse() -> None:
    nest = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 2000
    found = list(elements(nest[:HEAD_BYTES], EXPLICIT_LITTLE))
    assert len(found) > 1000
    assert max(map(len, found)) < 100
