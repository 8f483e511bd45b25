"""The elements of a dataset or command set as text for the log, and how datasets in a transfer syntax are read.

Nothing recurses, and what does not fit together ends the list: peers send anything.
"""

import contextlib
import struct
import warnings
from collections.abc import Iterator

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_description, dictionary_VR
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian

HEAD_BYTES = 32 * 1024
"""Of a dataset; what stands behind is not written."""
LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_LONGEST_VALUE = 64
_DEEPEST_SHOWN = 8
_UNDEFINED = 0xFFFFFFFF
_CHARACTER_SET, _PIXEL_DATA = 0x00080005, 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
_TEXTS = frozenset(
    ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT")
)
_DELIMITERS = set(b"^=\\")  # where a character set ends that an escape sequence began


class Encoding:
    """How the elements of a dataset are read.

    Args:
        order: `<` or `>`, of the bytes.
        explicit: whether each element tells its VR.
    """

    def __init__(self, order: str, *, explicit: bool) -> None:
        self.order = order
        self.header = struct.Struct(order + ("HH2sH" if explicit else "HHI")).unpack_from
        self.tag = struct.Struct(order + "HH").unpack_from
        self.short = struct.Struct(order + "H").unpack_from
        self.long = struct.Struct(order + "I").unpack_from
        self.explicit = explicit


IMPLICIT_LITTLE = Encoding("<", explicit=False)
EXPLICIT_LITTLE = Encoding("<", explicit=True)
EXPLICIT_BIG = Encoding(">", explicit=True)


def encoding_of(transfer_syntax: str) -> Encoding | None:
    """How datasets in a transfer syntax begin; None when that cannot be told without decoding."""
    uid = UID(transfer_syntax)
    if uid == ImplicitVRLittleEndian:
        return IMPLICIT_LITTLE
    if uid == ExplicitVRBigEndian:
        return EXPLICIT_BIG
    if uid.is_private or not uid.is_transfer_syntax or "Deflate" in uid.name:
        return None
    return EXPLICIT_LITTLE  # as are all encapsulated ones (PS3.5 §A.4)


def dump(data: bytes, encoding: Encoding) -> str:
    """The elements of a dataset's beginning in one line; they hold patient data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what cannot be decoded, the rest is shown
        return "; ".join(elements(data, encoding))


def elements(data: bytes, encoding: Encoding) -> Iterator[str]:
    """The elements of a dataset's beginning up to its pixels, one text each; `>` stands before those of an item.

    Sequences are entered, but nothing recurses, and what does not fit together ends the list: peers send anything.

    Args:
        data: the first bytes.
        encoding: how they are read.
    """
    at, end = 0, len(data)
    ends: list[int] = []  # of the sequences and items around the element; where none is told, behind everything
    character_sets = ["iso8859"]
    while end - at >= 8:
        while ends and at >= ends[-1]:
            ends.pop()
        group, number = encoding.tag(data, at)
        tag = group << 16 | number
        if tag == _PIXEL_DATA and not ends:
            return
        vr, length, at = _header(data, at, tag, encoding)
        if tag in (_ITEM_END, _SEQUENCE_END):
            if ends:
                ends.pop()
        elif tag == _ITEM or vr == "SQ":
            if vr == "SQ":
                yield _told(tag, vr, "sequence", len(ends))
            ends.append(end if length == _UNDEFINED else at + length)
        elif length == _UNDEFINED:
            return
        else:
            raw = data[at : at + length]
            yield _told(tag, vr, _value(vr, raw, encoding, character_sets), len(ends))
            if tag == _CHARACTER_SET and len(raw) == length:
                with contextlib.suppress(LookupError):
                    character_sets = convert_encodings(raw.decode("latin-1").strip(" \0").split("\\"))
            at += length


def _header(data: bytes, at: int, tag: int, encoding: Encoding) -> tuple[str, int, int]:
    """Value representation, length, and where the value begins."""
    if not encoding.explicit or tag in (_ITEM, _ITEM_END, _SEQUENCE_END):
        return _representation(tag), encoding.long(data, at + 4)[0], at + 8
    vr = data[at + 4 : at + 6]
    if vr not in LONG_VRS:
        return vr.decode("latin-1"), encoding.short(data, at + 6)[0], at + 8
    if len(data) - at < 12:
        return vr.decode("latin-1"), _UNDEFINED, len(data)
    return vr.decode("latin-1"), encoding.long(data, at + 8)[0], at + 12


def _representation(tag: int) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


def _told(tag: int, vr: str, value: str, depth: int) -> str:
    name = ""
    with contextlib.suppress(KeyError):
        name = f" {dictionary_description(tag)}"
    return f"{'>' * min(depth // 2, _DEEPEST_SHOWN)}{tag >> 16:04X},{tag & 0xFFFF:04X} {vr}{name}: {value}"


def _value(vr: str, raw: bytes, encoding: Encoding, character_sets: list[str]) -> str:
    if vr in _NUMBERS and len(raw) <= _LONGEST_VALUE:
        layout = struct.Struct(encoding.order + _NUMBERS[vr])
        whole = raw[: len(raw) - len(raw) % layout.size]
        return "\\".join(str(value) for (value,) in layout.iter_unpack(whole))
    if vr not in _TEXTS:
        return f"{len(raw)} bytes"
    try:
        text = decode_bytes(raw, character_sets, _DELIMITERS)
    except (LookupError, UnicodeError):
        text = raw.decode("latin-1")
    text = text.rstrip(" \0")
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
