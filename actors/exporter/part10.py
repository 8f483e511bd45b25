"""What a file must tell before it can be sent: SOP class and instance, transfer syntax, where its dataset begins.

A file is read as it is: its file meta group strictly (PS3.10 §7.1), its dataset by hopping from element to element, so
that what was cut short is not sent as if it were whole. Pixels are not read.
"""

import os
from struct import Struct

import msgspec

from protocol.dimse.encoding import BIG, LITTLE, Targets
from protocol.dimse.uids import is_uid, unpadded
from protocol.dimse.walk import BrokenDatasetError, Element, Walker
from protocol.errors import AdapterError

_FIRST_READ = 32 * 1024
_LONGEST_META_BYTES = 1024 * 1024
_PREAMBLE_BYTES = 132
_IMPLICIT_LITTLE, _EXPLICIT_BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
# What cannot be walked without inflating it.
_DEFLATED = frozenset(("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"))
_SOP_CLASS, _SOP_INSTANCE = 0x00080016, 0x00080018
_META_SOP_CLASS, _META_SOP_INSTANCE, _META_TRANSFER_SYNTAX = 0x0002, 0x0003, 0x0010
_TARGETS = Targets(frozenset((_SOP_CLASS, _SOP_INSTANCE)))
_ELEMENT = Struct("<HH2sH").unpack_from
_LONG = Struct("<L").unpack_from
_LONG_VRS = frozenset((b"OB", b"OW", b"OD", b"OF", b"OL", b"OV", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))


class NotDicomError(AdapterError):
    """A file that can never be sent; the sentence says why, without patient data."""


class DicomFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that can be sent.

    Args:
        size: bytes of the whole file.
        dataset_offset: bytes before its dataset.
        sop_class, sop_instance, transfer_syntax: UIDs.
    """

    size: int
    dataset_offset: int
    sop_class: str
    sop_instance: str
    transfer_syntax: str


def read_file(path: str) -> DicomFile:
    """Look at a file.

    The SOP UIDs are the dataset's own, as every receiver sees them; the file meta group's stand in where they are
    missing or cannot be read (deflated datasets).

    Raises:
        NotDicomError: it is no DICOM file, or not a whole one.
        OSError: it cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read(fd)
    finally:
        os.close(fd)


def _read(fd: int) -> DicomFile:
    size = os.fstat(fd).st_size
    first = os.pread(fd, _FIRST_READ, 0)
    if first[128:_PREAMBLE_BYTES] != b"DICM":
        raise NotDicomError("it is no DICOM file: a file has to begin as PS3.10 says")
    meta, offset = _meta_group(fd, first, size)
    transfer_syntax = meta.get(_META_TRANSFER_SYNTAX, "")
    if not is_uid(transfer_syntax):
        raise NotDicomError("its file meta group has no valid Transfer Syntax UID")
    if offset >= size:
        raise NotDicomError("it is cut short: there is no dataset behind its file meta group")
    found: dict[int, Element] = {}
    if transfer_syntax not in _DEFLATED:
        try:
            Walker(
                lambda at, length: os.pread(fd, length, at),
                start=offset,
                end=size,
                window=first,
                order=BIG if transfer_syntax == _EXPLICIT_BIG else LITTLE,
                explicit=transfer_syntax != _IMPLICIT_LITTLE,
                targets=_TARGETS,
                found=found,
            ).walk()
        except BrokenDatasetError as error:
            raise NotDicomError(f"it is cut short or damaged: {error}") from None
    return DicomFile(
        size=size,
        dataset_offset=offset,
        sop_class=_uid(found.get(_SOP_CLASS), meta.get(_META_SOP_CLASS, ""), "SOP Class UID"),
        sop_instance=_uid(found.get(_SOP_INSTANCE), meta.get(_META_SOP_INSTANCE, ""), "SOP Instance UID"),
        transfer_syntax=transfer_syntax,
    )


def _uid(element: Element | None, of_meta: str, name: str) -> str:
    uid = (_text(element[1]) if element else "") or of_meta
    if not is_uid(uid):
        raise NotDicomError(f"its {name} is no valid UID" if uid else f"it has no {name}")
    return uid


def _text(value: bytes) -> str:
    return unpadded(value).decode("latin-1")


def _meta_group(fd: int, first: bytes, size: int) -> tuple[dict[int, str], int]:
    """Walk the file meta group, always in explicit VR little endian; returns UIDs by element, and its end."""
    values: dict[int, str] = {}
    data, at = first, _PREAMBLE_BYTES
    if len(data) < size and _group_ends_behind(data):
        data = os.pread(fd, min(size, _LONGEST_META_BYTES), 0)
    while at < size:
        if len(data) - at < 8:
            raise NotDicomError("its file meta group is cut short, or longer than anybody needs")
        group, element, vr, length = _ELEMENT(data, at)
        if group != 0x0002:
            break
        at += 8
        if not (vr.isalpha() and vr.isupper()):
            raise NotDicomError("its file meta group is not in explicit VR, little endian")
        if vr in _LONG_VRS:
            if len(data) - at < 4:
                raise NotDicomError("its file meta group is cut short")
            (length,) = _LONG(data, at)
            at += 4
        if length > min(size, _LONGEST_META_BYTES) - at:
            raise NotDicomError("its file meta group is cut short, or longer than anybody needs")
        if vr == b"UI":
            values[element] = _text(data[at : at + length])
        at += length
    return values, at


def _group_ends_behind(data: bytes) -> bool:
    """Whether the file meta group says that it is longer than what was read first."""
    group, element, vr, length = _ELEMENT(data.ljust(_PREAMBLE_BYTES + 12, b"\0"), _PREAMBLE_BYTES)
    if (group, element, vr, length) != (2, 0, b"UL", 4):
        return False
    return int(_LONG(data.ljust(_PREAMBLE_BYTES + 12, b"\0"), _PREAMBLE_BYTES + 8)[0]) + 144 + 8 > len(data)
