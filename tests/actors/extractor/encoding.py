"""Instances written byte by byte, so that they can also be wrong."""

import struct
from collections.abc import Iterable
from pathlib import Path

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG = "1.2.840.10008.1.2.4.50"

UNDEFINED = 0xFFFFFFFF
CT = "1.2.840.10008.5.1.4.1.1.2"
STUDY, SERIES, INSTANCE = "1.2.3.4", "1.2.3.4.5", "1.2.3.4.5.6"
_LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}


def element(tag: int, vr: str, value: bytes | str, syntax: str = EXPLICIT, length: int | None = None) -> bytes:
    """One element; its length is the value's unless another is claimed."""
    sign = ">" if syntax == BIG else "<"
    raw = value.encode("ascii") if isinstance(value, str) else value
    if len(raw) % 2:
        raw += b"\0" if vr in {"UI", "OB", "UN"} else b" "
    claimed = len(raw) if length is None else length
    head = struct.pack(f"{sign}HH", tag >> 16, tag & 0xFFFF)
    if syntax == IMPLICIT:
        return head + struct.pack(f"{sign}L", claimed) + raw
    if vr in _LONG:
        return head + vr.encode() + struct.pack(f"{sign}xxL", claimed) + raw
    return head + vr.encode() + struct.pack(f"{sign}H", claimed) + raw


def delimiter(tag: int, length: int = 0, syntax: str = EXPLICIT) -> bytes:
    """An item's beginning, or a delimiter."""
    return struct.pack(">HHL" if syntax == BIG else "<HHL", tag >> 16, tag & 0xFFFF, length)


def dataset(
    *more: bytes,
    syntax: str = EXPLICIT,
    character_set: str = "",
    patient_id: bytes = b"PAT-1",
    without: Iterable[int] = (),
    changed: dict[int, str] | None = None,
) -> bytes:
    """A small dataset: identifiers, and more elements in their places."""
    elements = {
        0x00080005: ("CS", character_set.encode()),
        0x00080016: ("UI", CT.encode()),
        0x00080018: ("UI", INSTANCE.encode()),
        0x00080060: ("CS", b"CT"),
        0x00100020: ("LO", patient_id),
        0x0020000D: ("UI", STUDY.encode()),
        0x0020000E: ("UI", SERIES.encode()),
    }
    elements |= {tag: (elements[tag][0], value.encode()) for tag, value in (changed or {}).items()}
    rendered = [element(tag, vr, raw, syntax) for tag, (vr, raw) in elements.items() if tag not in without]
    sign = ">HH" if syntax == BIG else "<HH"
    return b"".join(sorted((*rendered, *more), key=lambda each: struct.unpack_from(sign, each)))


def part10(body: bytes, syntax: str = EXPLICIT, sop_instance: str = INSTANCE, sop_class: str = CT) -> bytes:
    """A file as a receiver writes it."""
    meta = b"".join(
        (
            element(0x00020001, "OB", b"\0\1"),
            element(0x00020002, "UI", sop_class),
            element(0x00020003, "UI", sop_instance),
            element(0x00020010, "UI", syntax),
            element(0x00020012, "UI", "1.2.826.0.1"),
            element(0x00020017, "AE", "MODALITY"),
            element(0x00020018, "AE", "CLARA"),
            element(0x00020026, "UR", "dicom://[2001:db8::7]:40104"),
        )
    )
    return bytes(128) + b"DICM" + element(0x00020000, "UL", struct.pack("<L", len(meta))) + meta + body


def write(path: Path, body: bytes, syntax: str = EXPLICIT) -> str:
    """A file at a path; returns the path as text."""
    path.write_bytes(part10(body, syntax))
    return str(path)


def nest(depth: int, *, defined: bool, tag: int = 0x0040A730, syntax: str = EXPLICIT) -> bytes:
    """A sequence in a sequence in a sequence."""
    if not defined:
        return b"".join(
            (
                (element(tag, "SQ", b"", syntax, UNDEFINED) + delimiter(0xFFFEE000, UNDEFINED, syntax)) * depth,
                (delimiter(0xFFFEE00D, 0, syntax) + delimiter(0xFFFEE0DD, 0, syntax)) * depth,
            )
        )
    header = len(element(tag, "SQ", b"", syntax))
    heads = []
    for level in range(depth):
        inside = (depth - level - 1) * (header + 8)
        heads.append(element(tag, "SQ", b"", syntax, inside + 8) + delimiter(0xFFFEE000, inside, syntax))
    return b"".join(heads)
