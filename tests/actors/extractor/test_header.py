"""Headers of instances: every encoding, what makes one unusable, and bounds on what a sender can cost."""

import struct
import time
import zlib
from pathlib import Path

import pytest

from actors.extractor import header as dicom
from actors.extractor.header import Header, Wanted, describe
from protocol.dimse.walk import DEEPEST
from tests.actors.extractor.encoding import (
    BIG,
    CT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    INSTANCE,
    JPEG,
    SERIES,
    STUDY,
    UNDEFINED,
    dataset,
    delimiter,
    element,
    nest,
    part10,
    write,
)

WANTED = Wanted(("00080060", "0008103E", "00100010", "00280010"))
PIXELS = 0x7FE00010


def header_of(path: Path, body: bytes, syntax: str = EXPLICIT, wanted: Wanted = WANTED) -> Header:
    return describe(write(path / "instance.dcm", body, syntax), wanted)


def deflated(body: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG, DEFLATED, JPEG, "1.2.3.99"])
def test_identifiers_attributes_and_association(tmp_path: Path, syntax: str) -> None:
    encoding = syntax if syntax in {IMPLICIT, BIG} else EXPLICIT
    rows = struct.pack(">H" if syntax == BIG else "<H", 512)
    body = dataset(
        element(0x0008103E, "LO", "Thorax  1.5 ", encoding),
        element(0x00280010, "US", rows, encoding),
        element(0x00290010, "UN", bytes(3000), encoding),
        element(PIXELS, "OW", bytes(5000), encoding),
        syntax=encoding,
    )
    header = header_of(tmp_path, deflated(body) if syntax == DEFLATED else body, syntax)
    assert header.problem == ""
    assert header.attributes(WANTED) == {
        "00080060": "CT",
        "0008103E": "Thorax  1.5",
        "00100010": "",
        "00280010": "512",
    }
    assert header.values[dicom.STUDY_INSTANCE_UID] == STUDY
    assert header.values[dicom.SERIES_INSTANCE_UID] == SERIES
    assert header.values[dicom.PATIENT_ID] == "PAT-1"
    assert header.meta == {
        dicom.MEDIA_SOP_CLASS_UID: CT,
        dicom.MEDIA_SOP_INSTANCE_UID: INSTANCE,
        dicom.TRANSFER_SYNTAX_UID: syntax,
        dicom.SENDING_AE_TITLE: "MODALITY",
        dicom.RECEIVING_AE_TITLE: "CLARA",
        dicom.SOURCE_PRESENTATION_ADDRESS: "dicom://[2001:db8::7]:40104",
    }
    data = (tmp_path / "instance.dcm").read_bytes()
    assert header.size == len(data)
    assert header.dataset_offset == len(part10(b"", syntax))


@pytest.mark.parametrize(("declared", "real"), [(EXPLICIT, IMPLICIT), (IMPLICIT, EXPLICIT), (JPEG, IMPLICIT)])
def test_the_dataset_is_believed_rather_than_its_transfer_syntax(tmp_path: Path, declared: str, real: str) -> None:
    header = header_of(tmp_path, dataset(syntax=real), declared)
    assert (header.problem, header.values[dicom.STUDY_INSTANCE_UID]) == ("", STUDY)


def test_representations_that_nobody_knows(tmp_path: Path) -> None:
    """Such elements have a length of 32 bits by the standard, of 16 bits from some senders, or none at all."""
    body = dataset(
        element(0x00090010, "OB", bytes(3000)).replace(b"OB", b"ZZ", 1),
        element(0x00090012, "LO", b"12").replace(b"LO", b"YY", 1),
        element(0x00090014, "LO", b"1234", IMPLICIT),
    )
    assert header_of(tmp_path, body).problem == ""


@pytest.mark.parametrize("empty", [False, True])
def test_no_patient_id_is_fine(tmp_path: Path, empty: bool) -> None:
    body = dataset(patient_id=b"") if empty else dataset(without=[dicom.PATIENT_ID])
    header = header_of(tmp_path, body)
    assert (header.problem, header.values.get(dicom.PATIENT_ID, "")) == ("", "")


@pytest.mark.parametrize(
    ("tag", "name"),
    [(0x00080018, "SOP Instance UID"), (0x0020000D, "Study Instance UID"), (0x0020000E, "Series Instance UID")],
)
@pytest.mark.parametrize(
    "value", [None, "", " ", "..", "../../etc/x", "1.2.", ".1", "1..2", "1.2\\1.3", "1" * 65, "1.2.x"]
)
def test_an_instance_without_usable_identifiers_is_a_problem(
    tmp_path: Path, tag: int, name: str, value: str | None
) -> None:
    body = dataset(without=[tag]) if value is None else dataset(changed={tag: value})
    problem = header_of(tmp_path, body).problem
    assert problem.startswith(f"element {tag >> 16:04X},{tag & 0xFFFF:04X} ({name}) is ")
    assert problem.endswith(("is missing or empty", "is no valid UID"))
    assert not value or not value.strip(" .") or value not in problem


@pytest.mark.parametrize("tag", [0x00080016, 0x00080018])
def test_a_dataset_that_is_not_what_the_request_said_is_a_problem(tmp_path: Path, tag: int) -> None:
    assert "differs from the one under which" in header_of(tmp_path, dataset(changed={tag: "1.9.9"})).problem


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_a_dataset_cut_short_anywhere_is_a_problem(tmp_path: Path, syntax: str) -> None:
    """Unless it is cut between two elements, where nothing tells that more was meant."""
    parts = [
        element(0x00081140, "SQ", b"", syntax, UNDEFINED)
        + delimiter(0xFFFEE000, UNDEFINED, syntax)
        + element(0x00081155, "UI", "1.2", syntax)
        + delimiter(0xFFFEE00D, 0, syntax)
        + delimiter(0xFFFEE0DD, 0, syntax),
        element(0x00290010, "OB", bytes(40), syntax),
        element(PIXELS, "OW", b"\7" * 60, syntax),
    ]
    body = dataset(*parts, syntax=syntax)
    tail = len(parts[1]) + len(parts[2])
    boundaries = {len(body), len(body) - len(parts[2]), len(body) - tail}
    for cut in range(len(body) - tail, len(body) + 1):
        problem = header_of(tmp_path, body[:cut], syntax).problem
        rest = body[max(boundary for boundary in boundaries if boundary <= cut) : cut]
        looks_like_padding = len(rest) < 8 and not any(rest)
        assert (problem == "") == looks_like_padding, cut
        assert not problem or problem.startswith("the dataset ends inside"), problem
    for cut in range(len(body) - tail):
        assert header_of(tmp_path, body[:cut], syntax).problem, cut


def test_the_sentence_names_the_element(tmp_path: Path) -> None:
    body = dataset(element(0x00081030, "LO", b"Thorax", length=9000), without=[0x00100020, 0x0020000D, 0x0020000E])
    header = header_of(tmp_path, body)
    assert header.problem == "the dataset ends inside element 0008,1030"
    assert header.values[dicom.SOP_INSTANCE_UID] == INSTANCE  # what was read stays, for a lenient description


def test_fragments_of_pixel_data_are_hopped_over(tmp_path: Path) -> None:
    fragments = delimiter(0xFFFEE000, 0) + (delimiter(0xFFFEE000, 50_000) + b"\xfe\xff\xdd\xe0" * 12_500) * 3
    whole = dataset(element(PIXELS, "OB", b"", length=UNDEFINED) + fragments + delimiter(0xFFFEE0DD))
    assert header_of(tmp_path, whole, JPEG).problem == ""
    for cut in (1, 8, 9, 50_000, 100_017):
        assert header_of(tmp_path, whole[:-cut], JPEG).problem == "the dataset ends inside element 7FE0,0010", cut


def test_zeros_at_the_end_are_padding_and_other_bytes_are_not(tmp_path: Path) -> None:
    for syntax in (EXPLICIT, IMPLICIT):
        body = dataset(element(PIXELS, "OW", bytes(60), syntax), syntax=syntax)
        for zeros in (1, 7, 8, 100, 5000):
            assert header_of(tmp_path, body + bytes(zeros), syntax).problem == "", zeros
        assert header_of(tmp_path, body + b"x", syntax).problem
        assert header_of(tmp_path, body + bytes(12) + b"x", syntax).problem


def test_a_delimiter_outside_a_sequence_is_a_problem(tmp_path: Path) -> None:
    for syntax in (EXPLICIT, IMPLICIT):
        body = dataset(syntax=syntax) + delimiter(0xFFFEE00D)
        assert header_of(tmp_path, body, syntax).problem == "FFFE,E00D stands outside a sequence"


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("defined", [False, True])
@pytest.mark.parametrize("tag", [0x00081140, 0x0040A730], ids=["before", "after"])
def test_sequences_nested_too_deep_are_a_problem(tmp_path: Path, syntax: str, defined: bool, tag: int) -> None:
    deep = header_of(tmp_path, dataset(nest(5000, defined=defined, tag=tag, syntax=syntax), syntax=syntax), syntax)
    assert f"sequences are nested more than {DEEPEST} deep" in deep.problem
    fine = header_of(tmp_path, dataset(nest(DEEPEST, defined=defined, tag=tag, syntax=syntax), syntax=syntax), syntax)
    assert fine.problem == ""


def test_a_nest_behind_other_items_is_found(tmp_path: Path) -> None:
    small = delimiter(0xFFFEE000, 12) + element(0x00081155, "UI", b"1.2\0")
    deep = nest(300, defined=True)
    inside = small * 50 + delimiter(0xFFFEE000, len(deep)) + deep
    assert "nested" in header_of(tmp_path, dataset(element(0x0040A730, "SQ", inside))).problem


def test_sequences_whose_items_do_not_fit(tmp_path: Path) -> None:
    """With a length of its own a sequence can be hopped over; without one nobody knows where it ends."""
    garbage = b"\xfe\xff\x00\xe0" + b"garbage " * 400
    assert header_of(tmp_path, dataset(element(0x00081140, "SQ", garbage))).problem == ""
    endless = dataset(element(0x00081140, "SQ", garbage, length=UNDEFINED))
    assert "0008,1140" in header_of(tmp_path, endless).problem


def test_many_elements_cost_a_bounded_time(tmp_path: Path) -> None:
    """Tiny elements without end, before and behind what is wanted, and in a sequence."""
    tiny = element(0x00090010, "UN", b"") * 2_000_000
    tail = element(0x00290010, "UN", b"") * 2_000_000
    inside = delimiter(0xFFFEE000, 0) * 1_000_000 + delimiter(0xFFFEE0DD)
    for body, expected in (
        (dataset(tiny), "stand before the end of element 0028,0010"),
        (dataset(tail), ""),
        (dataset(element(0x00081140, "SQ", inside, length=UNDEFINED)), "more than 200000 elements stand before"),
        (dataset(element(0x0040A730, "SQ", inside, length=UNDEFINED)), ""),
    ):
        path = write(tmp_path / "instance.dcm", body)
        started = time.process_time()
        problem = describe(path, WANTED).problem
        assert time.process_time() - started < 2.0
        assert expected in problem
        assert bool(expected) == bool(problem)


@pytest.mark.parametrize("before", [True, False])
def test_a_deflate_bomb_is_bounded(tmp_path: Path, before: bool) -> None:
    """1 GB of zeros in 1 MB: inflated only as far as it can hold a header."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    tag = 0x00090010 if before else PIXELS
    blob = element(tag, "OB", b"", length=1 << 30)
    head, tail = dataset(blob).split(blob)
    start = compressor.compress(head + blob) + compressor.flush(zlib.Z_FULL_FLUSH)
    mebibyte = compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    bomb = start + mebibyte * (1 << 10) + compressor.compress(tail) + compressor.flush()
    assert len(bomb) < 2 << 20
    path = write(tmp_path / "bomb.dcm", bomb, DEFLATED)
    started = time.process_time()
    problem = describe(path, WANTED).problem
    assert time.process_time() - started < 2.0
    assert problem == ("more than 32 MiB stand before the end of element 0028,0010" if before else "")


def test_deflated_datasets_that_are_damaged(tmp_path: Path) -> None:
    body = deflated(dataset(element(PIXELS, "OW", bytes(range(256)) * 100)))
    assert header_of(tmp_path, body, DEFLATED).problem == ""
    assert header_of(tmp_path, body + b"\0", DEFLATED).problem == ""  # padded to an even length
    assert header_of(tmp_path, body[:-20], DEFLATED).problem
    assert header_of(tmp_path, b"\xff" * 100, DEFLATED).problem
    assert header_of(tmp_path, b"", DEFLATED).problem
    # Empty blocks, which inflate to nothing.
    assert header_of(tmp_path, b"\0\0\0\xff\xff" * 1000, DEFLATED).problem


def test_wanted_values_beyond_the_first_read(tmp_path: Path) -> None:
    blob = element(0x00090010, "OB", bytes(200_000))
    many = b"".join(element(0x00110000 | number, "LO", b"x" * 60) for number in range(0x1000, 0x1400))
    header = header_of(tmp_path, dataset(blob, many, element(0x00100010, "PN", b"A" * 64)))
    assert (header.problem, header.values[dicom.STUDY_INSTANCE_UID]) == ("", STUDY)
    assert header.values[0x00100010] == "A" * 64


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    wanted = Wanted(("0020,4000".replace(",", ""),))
    header = header_of(tmp_path, dataset(element(0x00204000, "UT", b"x" * 1_000_000)), wanted=wanted)
    assert header.problem == ""
    assert header.attributes(wanted) == {"00204000": "x" * 4096}


def test_files_that_are_no_instances(tmp_path: Path) -> None:
    path = tmp_path / "garbage.dcm"
    for data in (b"", b"DICM", bytes(132), bytes(128) + b"DICM", part10(dataset())[:200], b"\xff" * 100_000):
        path.write_bytes(data)
        assert describe(str(path), WANTED).problem


def test_a_file_that_is_gone_is_the_caller_s_business(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        describe(str(tmp_path / "gone.dcm"), WANTED)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for body in (dataset(), dataset()[:50], b""):
        header_of(tmp_path, body)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_tag_that_is_none() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        Wanted(("PatientID",))
