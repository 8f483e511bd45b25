"""The header reader against pydicom: on pydicom's own files as they are, and damaged in every way."""

import functools
import logging
import struct
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.multival import MultiValue

from actors.extractor import header as dicom
from actors.extractor.header import Wanted, describe
from protocol.dimse.encoding import Targets
from protocol.dimse.walk import BrokenDatasetError, Element, Walker
from tests.actors.extractor.encoding import part10

_DATA = Path(pydicom.__file__).parent / "data"
_FILES = sorted(path for path in _DATA.rglob("*.dcm") if path.read_bytes()[128:132] == b"DICM")
_KNOWN = {vr.value for vr in pydicom.valuerep.VR}
_TEXT = Wanted(
    (
        *("00080020", "00080060", "00080070", "00081030", "0008103E", "00100010", "00100020", "00100030"),
        *("00101010", "00180050", "0020000D", "0020000E", "00200010", "00200037", "00280010", "00280030"),
    )
)
# pydicom decodes Specific Character Set at once and keeps no raw value of it.
_RAW_TAGS = _TEXT.targets.tags - {dicom.SPECIFIC_CHARACTER_SET}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """pydicom says much about damaged files."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.getLogger("pydicom").setLevel(logging.NOTSET)


def test_there_are_files() -> None:
    assert len(_FILES) > 80


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.name)
def test_the_same_values_as_pydicom(path: Path) -> None:
    expected = pydicom.dcmread(path, stop_before_pixels=True)
    header = describe(str(path), _TEXT)
    for name, text in header.attributes(_TEXT).items():
        assert _without_padding(text) == _as_text(expected, int(name, 16)), name
    if not header.problem.startswith("the dataset ends inside"):
        assert header.dataset_offset == _dataset_offset(path)


def test_which_of_them_are_whole() -> None:
    """All but those that are cut short; what else is wrong with some of them is in their identifiers."""
    problems = {path.name: describe(str(path), _TEXT).problem for path in _FILES}
    broken = {name for name, problem in problems.items() if problem and not problem.startswith("element ")}
    assert broken == {"MR_truncated.dcm", "rtplan_truncated.dcm"}


def _as_text(read: FileDataset, tag: int) -> str:
    value = read[tag].value if tag in read else ""
    if isinstance(value, MultiValue):
        return "\\".join(_without_padding(str(each)) for each in value)
    return _without_padding("" if value is None else str(value))


def _without_padding(text: str) -> str:
    return "\\".join(value.strip(" \0") for value in text.split("\\"))


def _dataset_offset(path: Path) -> int:
    with path.open("rb") as file:
        file.seek(132)
        pydicom.filereader._read_file_meta_info(file)
        return file.tell()


# Damaged files.


class _Sample:
    """A file's encoding and the beginning of its dataset.

    Args:
        path: of one of pydicom's files that is not deflated.
    """

    def __init__(self, path: Path) -> None:
        header = describe(str(path), _TEXT)
        self.syntax = header.meta[dicom.TRANSFER_SYNTAX_UID]
        self.body = path.read_bytes()[header.dataset_offset :][:6000]


@functools.cache
def _samples() -> tuple[_Sample, ...]:
    names = (
        *("CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "rtplan.dcm", "rtstruct.dcm"),
        *("waveform_ecg.dcm", "test-SR.dcm", "chrH32.dcm", "nested_priv_SQ.dcm", "JPEG2000.dcm", "badVR.dcm"),
    )
    return tuple(_Sample(path) for path in _FILES if path.name in names)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, bytes]:
    """A transfer syntax and a dataset that was sound once."""
    sample = draw(st.sampled_from(_samples()))
    body = bytearray(sample.body)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(body) - 4)))
        match draw(st.sampled_from(["byte", "length", "cut", "insert", "remove", "repeat"])):
            case "byte":
                body[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "length":
                choices = (0, 1, 7, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
                body[at : at + 4] = struct.pack("<L", draw(st.sampled_from(choices)))
            case "cut":
                del body[at:]
            case "insert":
                body[at:at] = draw(st.binary(min_size=1, max_size=20))
            case "remove":
                del body[at : at + draw(st.integers(1, 40))]
            case "repeat":
                body[at:at] = body[at : at + draw(st.integers(1, 400))]
    return sample.syntax, bytes(body)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged())
def test_damaged_files_are_described_somehow(tmp_path: Path, case: tuple[str, bytes]) -> None:
    """There is always an answer, and what it says is text that a ledger takes."""
    syntax, body = case
    path = tmp_path / "damaged.dcm"
    path.write_bytes(part10(body, syntax))
    started = time.process_time()
    header = describe(str(path), _TEXT)
    assert time.process_time() - started < 1.0
    for text in (*header.values.values(), *header.meta.values(), header.problem):
        assert "\0" not in text
        text.encode()


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged())
def test_what_both_can_read_they_read_the_same(tmp_path: Path, case: tuple[str, bytes]) -> None:
    """When the walk finds nothing wrong, and pydicom neither, the same bytes stand behind the same tags."""
    syntax, body = case
    path = tmp_path / "damaged.dcm"
    path.write_bytes(part10(body, syntax))
    found = _walked(body, syntax)
    expected = _read_by_pydicom(path)
    if found is None or expected is None:
        return
    assert {tag: raw for tag, (_, raw) in found.items() if raw} == expected


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"]),
    st.binary(max_size=400),
)
def test_garbage_is_described_somehow(tmp_path: Path, syntax: str, body: bytes) -> None:
    path = tmp_path / "garbage.dcm"
    path.write_bytes(part10(body, syntax))
    assert describe(str(path), _TEXT).problem
    path.write_bytes(bytes(128) + b"DICM" + body)
    assert describe(str(path), _TEXT).problem


def _walked(body: bytes, syntax: str) -> dict[int, Element] | None:
    found: dict[int, Element] = {}
    walker = Walker(
        lambda at, length: body[at : at + length],
        start=0,
        end=len(body),
        window=body[:1000],
        order=dicom.BIG if syntax == dicom.EXPLICIT_BIG else dicom.LITTLE,
        explicit=syntax != dicom.IMPLICIT_LITTLE,
        targets=Targets(_RAW_TAGS),
        found=found,
    )
    try:
        walker.walk()
    except BrokenDatasetError:
        return None
    return found


def _read_by_pydicom(path: Path) -> dict[int, bytes] | None:
    """Raw values by tag; None where pydicom fails, or guesses what the standard says otherwise."""
    try:
        read = pydicom.dcmread(path)
    except Exception:
        return None
    elements = [each for each in read._dict.values() if isinstance(each, RawDataElement)]
    if any(each.VR is not None and each.VR not in _KNOWN for each in elements):
        return None  # PS3.5 §7.1.2 gives a length of 32 bits to what is unknown, pydicom one of 16
    return {int(each.tag): each.value for each in elements if each.tag in _RAW_TAGS and each.value}
