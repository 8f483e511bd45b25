"""The service with a log of what is said (`dicom.scp.logDimseDatasets`): requests, datasets' elements, responses.

An association has it in place of the plain service when an administrator asked for it; without that, nothing of it
stands on the way of an object. Patient data is in these lines, at Information, since that is what was asked for.
"""

import contextlib
import struct
import warnings
from collections.abc import Iterator

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_description, dictionary_VR

from actors.receiver.command import Command
from actors.receiver.first_elements import IMPLICIT_LITTLE, LONG_VRS, Encoding
from actors.receiver.service import Service, StorageContext

HEAD_BYTES = 32 * 1024
"""Of a dataset; what stands behind is not written."""
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


class LoggingService(Service):
    """Writes each request, the beginning of each dataset, and each response to the log; else as `Service`."""

    _head = b""

    def fragment(self, data: memoryview) -> None:
        """Keep what comes of a dataset until there is enough of it."""
        if not self._in_command and len(self._head) < HEAD_BYTES:
            self._head += data[: HEAD_BYTES - len(self._head)]
        super().fragment(data)

    def message_ends(self) -> None:
        """Write what came, whatever becomes of it."""
        context = self._contexts[self._context_id]
        if self._in_command:
            self._tell("dimse_request", context, _dump(bytes(self._command), IMPLICIT_LITTLE))
        elif context.encoding is None:
            self._tell("dimse_dataset", context, "not shown: it cannot be read without inflating it")
        else:
            self._tell("dimse_dataset", context, _dump(self._head, context.encoding))
        self._head = b""
        super().message_ends()

    def _respond(self, command: Command, context: StorageContext, status: int, comment: str) -> None:
        told = f"status 0x{status:04X}" + (f": {comment}" if comment else "")
        self._tell("dimse_response", context, told, message=command.message_id)
        super()._respond(command, context, status, comment)

    def _tell(self, event: str, context: StorageContext, elements: str, **more: int) -> None:
        self._shared.log.info(
            event, association=self._association, context=context.context_id, **more, elements=elements
        )


def _dump(data: bytes, encoding: Encoding) -> str:
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
