"""The header of an instance on disk: file meta group, identifiers, and the attributes that were asked for.

It is between the spool and `extractor`; it knows nothing of messages. One read of the first kilobytes is enough for
nearly every instance; pixels are never read.
"""

import functools
import os
import zlib
from collections.abc import Iterable
from struct import Struct

import msgspec

from actors.extractor.familiar import Familiar
from actors.extractor.text import as_text, without_nul
from protocol.dimse.encoding import BIG, LITTLE, ByteOrder, Targets, told
from protocol.dimse.uids import is_uid
from protocol.dimse.walk import BoundReachedError, BrokenDatasetError, Element, Walker

TRANSFER_SYNTAX_UID = 0x00020010
MEDIA_SOP_CLASS_UID = 0x00020002
MEDIA_SOP_INSTANCE_UID = 0x00020003
SENDING_AE_TITLE = 0x00020017
RECEIVING_AE_TITLE = 0x00020018
SOURCE_PRESENTATION_ADDRESS = 0x00020026
SPECIFIC_CHARACTER_SET = 0x00080005
SOP_CLASS_UID = 0x00080016
SOP_INSTANCE_UID = 0x00080018
PATIENT_ID = 0x00100020
STUDY_INSTANCE_UID = 0x0020000D
SERIES_INSTANCE_UID = 0x0020000E

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
_DEFLATED = frozenset(("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"))

LONGEST_INFLATED = 32 * 1024 * 1024
"""Bytes to which a deflated dataset is inflated at most."""

_FIRST_READ = 32 * 1024
_INFLATE_STEP = 256 * 1024
_IDENTIFYING = {
    SOP_INSTANCE_UID: "SOP Instance UID",
    STUDY_INSTANCE_UID: "Study Instance UID",
    SERIES_INSTANCE_UID: "Series Instance UID",
}
# Representations of what is asked for at almost every site: they spare it the half second of DICOM's dictionary.
_REPRESENTATIONS = {
    SPECIFIC_CHARACTER_SET: b"CS",
    SOP_CLASS_UID: b"UI",
    SOP_INSTANCE_UID: b"UI",
    0x00080020: b"DA",
    0x00080060: b"CS",
    0x00081030: b"LO",
    0x0008103E: b"LO",
    PATIENT_ID: b"LO",
    0x00100030: b"DA",
    0x00101010: b"AS",
    STUDY_INSTANCE_UID: b"UI",
    SERIES_INSTANCE_UID: b"UI",
}


class Wanted:
    """What is read of each dataset, besides its identifiers; make it once and use it for many.

    Args:
        tags: elements as GGGGEEEE.

    Raises:
        ValueError: one is no tag.
    """

    def __init__(self, tags: Iterable[str]) -> None:
        self.attributes = {tag: int(tag, 16) for tag in tags}
        all_tags = {*self.attributes.values(), *_IDENTIFYING, SPECIFIC_CHARACTER_SET, SOP_CLASS_UID, PATIENT_ID}
        self.targets = Targets(frozenset(all_tags))
        self.representations = {tag: _REPRESENTATIONS.get(tag) or _from_dictionary(tag) for tag in all_tags}


class Header(msgspec.Struct, kw_only=True):
    """What stands at the beginning of an instance.

    Args:
        size: bytes of the file.
        dataset_offset: bytes before the dataset, that is preamble and file meta group.
        meta: of the file meta group: what the constants of this module name, by tag.
        values: the identifiers and what else was asked for, by tag; absent and empty elements are left out.
        problem: why the instance cannot be used, a sentence without patient data; "" when it can.
    """

    size: int = 0
    dataset_offset: int = 0
    meta: dict[int, str] = {}
    values: dict[int, str] = {}
    problem: str = ""

    def attributes(self, wanted: Wanted) -> dict[str, str]:
        """The elements that were asked for, GGGGEEEE to text."""
        return {name: self.values.get(tag, "") for name, tag in wanted.attributes.items()}


def describe(path: str, wanted: Wanted, familiar: Familiar | None = None) -> Header:
    """Read an instance's header. Whatever the file holds, there is an answer.

    Args:
        path: of the file.
        wanted: what is read.
        familiar: what is known of similar headers, of which the same was wanted.

    Raises:
        OSError: the file is gone or cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        header = Header(size=os.fstat(fd).st_size)
        try:
            _read(fd, header, wanted, familiar or Familiar())
            header.problem = _unusable(header)
        except BrokenDatasetError as error:
            header.problem = str(error)
        return header
    finally:
        os.close(fd)


def _read(fd: int, header: Header, wanted: Wanted, familiar: Familiar) -> None:
    """Fill a header in; what was read before something turned out broken stays."""
    first = os.pread(fd, _FIRST_READ, 0)
    header.meta, header.dataset_offset = _file_meta(first, familiar)
    syntax = header.meta.get(TRANSFER_SYNTAX_UID, "")
    order = BIG if syntax == EXPLICIT_BIG else LITTLE
    found: dict[int, Element] = {}
    try:
        if syntax in _DEFLATED:
            _walk_deflated(fd, header.dataset_offset, wanted.targets, found)
        else:
            Walker(
                functools.partial(_pread, fd),
                start=header.dataset_offset,
                end=header.size,
                window=first,
                order=order,
                explicit=syntax != IMPLICIT_LITTLE,
                targets=wanted.targets,
                found=found,
                runs=familiar.runs,
            ).walk()
    finally:
        header.values = _texts(found, wanted, order)


def _pread(fd: int, at: int, length: int) -> bytes:
    return os.pread(fd, length, at)


def _texts(found: dict[int, Element], wanted: Wanted, order: ByteOrder) -> dict[int, str]:
    character_set = found.get(SPECIFIC_CHARACTER_SET, (b"", b""))[1]
    values = {}
    for tag, (vr, raw) in found.items():
        known = wanted.representations[tag] if vr in (b"", b"UN") else vr
        text = as_text(known, raw, character_set, order.sign)
        if text:
            values[tag] = text
    return values


def _unusable(header: Header) -> str:
    for tag, name in _IDENTIFYING.items():
        value = header.values.get(tag, "")
        if not value:
            return f"element {told(tag)} ({name}) is missing or empty"
        if not _is_uid(value):
            return f"element {told(tag)} ({name}) is no valid UID"
    for tag, meta, name in (
        (SOP_INSTANCE_UID, MEDIA_SOP_INSTANCE_UID, "SOP Instance UID"),
        (SOP_CLASS_UID, MEDIA_SOP_CLASS_UID, "SOP Class UID"),
    ):
        value = header.values.get(tag, "")
        if value and value != header.meta.get(meta, ""):
            return f"element {told(tag)} ({name}) differs from the one under which the instance was sent"
    return ""


_is_uid = functools.lru_cache(maxsize=256)(is_uid)


# The file meta group (PS3.10 §7.1): always explicit little endian.

_META_ELEMENT = Struct("<HH2sH").unpack_from
_META_LONG = Struct("<L").unpack_from
_META_WANTED = frozenset(
    tag & 0xFFFF
    for tag in (
        TRANSFER_SYNTAX_UID,
        MEDIA_SOP_CLASS_UID,
        MEDIA_SOP_INSTANCE_UID,
        SENDING_AE_TITLE,
        RECEIVING_AE_TITLE,
        SOURCE_PRESENTATION_ADDRESS,
    )
)
_META_LONG_REPRESENTATIONS = frozenset((b"OB", b"OW", b"UN", b"UR", b"UT", b"UC", b"SQ"))


_META_BEGINS = b"DICM\x02\x00\x00\x00UL\x04\x00"
_META_SECOND = 144  # where the second element begins: behind the preamble and the group's length
_META_INSTANCE = b"\x02\x00\x03\x00UI"


def _file_meta(first: bytes, familiar: Familiar) -> tuple[dict[int, str], int]:
    """The file meta group, and where the dataset begins.

    Raises:
        BrokenDatasetError: there is none, or it does not fit into the first read.
    """
    before, after = familiar.before, familiar.after
    at = _META_SECOND + len(before) + 2
    if after and len(first) >= at and first.startswith(_META_BEGINS, 128) and first.startswith(before, _META_SECOND):
        # All is as it was before, but for the SOP Instance UID.
        uid = at + first[at - 2] + (first[at - 1] << 8)
        end = uid + len(after)
        if first.startswith(after, uid) and first[end : end + 2] not in (b"\x02\x00", b""):
            return {**familiar.meta, MEDIA_SOP_INSTANCE_UID: _meta_text(first[at:uid])}, end
    return _parse_file_meta(first, familiar)


def _parse_file_meta(first: bytes, familiar: Familiar) -> tuple[dict[int, str], int]:
    if first[128:132] != b"DICM":
        raise BrokenDatasetError("the file does not begin with a preamble and a file meta group")
    meta: dict[int, str] = {}
    instance, after, is_whole = 0, 0, False
    at, end = 132, len(first)
    while at + 8 <= end:
        group, element, vr, length = _META_ELEMENT(first, at)
        if group != 0x0002:
            is_whole = True
            break
        at += 8
        if vr in _META_LONG_REPRESENTATIONS:
            if at + 4 > end:
                break
            length = _META_LONG(first, at)[0]
            at += 4
        if at + length > end:
            raise BrokenDatasetError(f"the file meta group ends inside element {told(0x00020000 | element)}")
        if element in _META_WANTED:
            meta[0x00020000 | element] = _meta_text(first[at : at + length])
            if element == MEDIA_SOP_INSTANCE_UID & 0xFFFF:
                instance, after = at - 8, at + length
        at += length
    # Nothing is learned from a file that is cut short.
    if is_whole and instance and first.startswith(_META_BEGINS, 128) and first.startswith(_META_INSTANCE, instance):
        familiar.before, familiar.after, familiar.meta = first[_META_SECOND : instance + 6], first[after:at], meta
    return meta, at


def _meta_text(raw: bytes) -> str:
    return without_nul(raw.decode("latin_1").strip(" \0"))


# Deflated datasets (PS3.5 §A.5).


def _walk_deflated(fd: int, offset: int, targets: Targets, found: dict[int, Element]) -> None:
    data, flaw, bounded = _inflate(fd, offset)

    def read(at: int, length: int) -> bytes:
        if bounded and at + length > len(data):
            raise BoundReachedError(f"more than {LONGEST_INFLATED >> 20} MiB stand")
        return data[at : at + length]

    end = 1 << 62 if bounded else len(data)  # where a dataset ends that was not inflated to its end is not known
    Walker(
        read,
        start=0,
        end=end,
        window=data[:_FIRST_READ],
        order=LITTLE,
        explicit=True,
        targets=targets,
        found=found,
    ).walk()
    if flaw:
        raise BrokenDatasetError(flaw)


def _inflate(fd: int, offset: int) -> tuple[bytes, str, bool]:
    """Inflate a dataset up to a bound.

    Returns:
        What it is, what is wrong with the rest of it, and whether the bound was reached.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    parts: list[bytes] = []
    room = LONGEST_INFLATED
    flaw = ""
    at = offset
    # The compressed bytes are bounded too: empty blocks inflate to nothing.
    while not inflater.eof and room > 0 and at - offset < LONGEST_INFLATED:
        compressed = inflater.unconsumed_tail
        if not compressed:
            compressed = os.pread(fd, _INFLATE_STEP, at)
            at += len(compressed)
            if not compressed:
                flaw = "the deflated dataset is cut short"
                break
        try:
            part = inflater.decompress(compressed, room)
        except zlib.error:
            flaw = "the deflated dataset is damaged"
            break
        parts.append(part)
        room -= len(part)
    return b"".join(parts), flaw, not inflater.eof and not flaw


def _from_dictionary(tag: int) -> bytes:
    """The representation of an element where the dataset does not tell it; b"UN" when DICOM does not know it."""
    from pydicom.datadict import dictionary_VR  # noqa: PLC0415 - half a second, rarely needed

    try:
        return dictionary_VR(tag).split(" or ")[0].encode("ascii")
    except KeyError:
        return b"UN"
