"""Raw values as text: padding, character sets (PS3.5 §6.1), numbers; several values are joined by a backslash."""

import functools
import re
import struct
from collections.abc import Sequence

_NUMBERS = {
    b"US": "H", b"SS": "h", b"UL": "L", b"SL": "l", b"UV": "Q", b"SV": "q", b"FL": "f", b"FD": "d",
}  # fmt: skip
_NO_TEXT = frozenset(b"OB OD OF OL OV OW SQ".split())
# PS3.5 §6.2: one text, in which a backslash is a character and spaces in front count.
_ONE_VALUE = frozenset(b"LT ST UR UT".split())
# PS3.5 §6.1.2.3: Specific Character Set (0008,0005) tells how these are encoded.
_BY_CHARACTER_SET = frozenset(b"LO LT PN SH ST UC UT".split())
_PLAIN = frozenset(b"AE AS CS DA DS DT IS LO SH TM UI".split())

_ESCAPE = b"\x1b"
_FRAGMENT = re.compile(rb"\x1b?[^\x1b]*")
# Where a code extension of a single-byte set ends (PS3.5 §6.1.2.5.3); the last two in person names only.
_RESETS = re.compile(rb"[\t\n\f\r\\]")
_RESETS_IN_NAMES = re.compile(rb"[\t\n\f\r\\^=]")
_DEFAULT = "latin_1"


@functools.lru_cache(maxsize=1024)  # nearly all values are those of the instance before
def as_text(vr: bytes, raw: bytes, character_set: bytes, sign: str) -> str:
    """An element's value as text; "" for what is no text, such as a sequence.

    Args:
        vr: value representation; b"UN" for one that nobody knows.
        raw: the value as it stands in the dataset.
        character_set: the raw value of Specific Character Set.
        sign: byte order of numbers, as `struct` has it.
    """
    if vr in _PLAIN and raw.isascii() and b"\\" not in raw and _ESCAPE not in raw:
        return without_nul(raw.decode("ascii").strip(" \0"))  # nearly always
    if vr in _NUMBERS:
        return _numbers(sign + _NUMBERS[vr], raw)
    if vr == b"AT":
        return "\\".join(f"{group:04X}{element:04X}" for group, element in _unpacked(f"{sign}HH", raw))
    if vr in _NO_TEXT:
        return ""
    if raw.isascii() and _ESCAPE not in raw:
        text = raw.decode("ascii")
    elif vr in _BY_CHARACTER_SET or vr == b"UN":
        text = _decoded(raw, character_set, _RESETS_IN_NAMES if vr == b"PN" else _RESETS)
    else:
        text = raw.decode(_DEFAULT)
    if vr == b"UN" and not text.rstrip(" \0").isprintable():
        return ""
    return without_nul(_without_padding(vr, text))


def without_nul(text: str) -> str:
    """Text that PostgreSQL takes: NUL, which is none of DICOM's characters, becomes U+FFFD."""
    return text.replace("\0", "\ufffd") if "\0" in text else text


def _without_padding(vr: bytes, text: str) -> str:
    if vr in _ONE_VALUE:
        return text.rstrip(" \0")
    values = text.split("\\")
    if vr == b"PN":
        # PS3.5 §6.2.1.1: empty component groups at the end may be left out, so they tell nothing.
        return "\\".join(value.rstrip(" \0=") for value in values)
    return "\\".join(value.rstrip(" \0") if vr == b"UC" else value.strip(" \0") for value in values)


def _numbers(layout: str, raw: bytes) -> str:
    return "\\".join(f"{number:.9g}" if layout[1] == "f" else str(number) for (number,) in _unpacked(layout, raw))


def _unpacked(layout: str, raw: bytes) -> Sequence[tuple[int | float, ...]]:
    size = struct.calcsize(layout)
    return list(struct.iter_unpack(layout, raw[: len(raw) - len(raw) % size]))


def _decoded(raw: bytes, character_set: bytes, resets: "re.Pattern[bytes]") -> str:
    """Decode text that is not plain ASCII; what cannot be decoded becomes U+FFFD."""
    encodings = _encodings(character_set)
    return "".join(_fragment(part, encodings, resets) for part in _FRAGMENT.findall(raw))


def _fragment(part: bytes, encodings: tuple[str, ...], resets: "re.Pattern[bytes]") -> str:
    """Decode what stands between two escape sequences (PS3.5 §6.1.2.5.3).

    The whole value comes here, not one of several: a byte of a kanji may look like the backslash between values.
    """
    if not part.startswith(_ESCAPE):
        return part.decode(encodings[0], "replace")
    from pydicom.charset import CODES_TO_ENCODINGS, handled_encodings  # noqa: PLC0415 - half a second, rarely needed

    size = 4 if part.startswith((b"\x1b$(", b"\x1b$)")) else 3
    encoding = CODES_TO_ENCODINGS.get(part[:size], "")
    if not encoding:
        return part.decode(encodings[0], "replace")
    if encoding in handled_encodings:
        return part.decode(encoding, "replace")  # these codecs know the escape sequence themselves
    reset = resets.search(part, size)
    end = reset.start() if reset else len(part)
    return part[size:end].decode(encoding, "replace") + part[end:].decode(encodings[0], "replace")


@functools.lru_cache(maxsize=64)
def _encodings(character_set: bytes) -> tuple[str, ...]:
    """Python's names of the encodings that Specific Character Set names; an unknown one is taken for Latin-1."""
    from pydicom.charset import python_encoding  # noqa: PLC0415 - half a second, rarely needed

    terms = [term.strip(" \0") for term in character_set.decode(_DEFAULT).split("\\")]
    return tuple(python_encoding.get(_mended(term), _DEFAULT) for term in terms)


def _mended(term: str) -> str:
    """A defined term, where real senders write `ISO-IR 100` or `ISO_2022_IR_87`."""
    if match := re.fullmatch(r"ISO.IR.(\d+)", term):
        return f"ISO_IR {match[1]}"
    if match := re.fullmatch(r"ISO.2022.IR.(\d+)", term):
        return f"ISO 2022 IR {match[1]}"
    return term
