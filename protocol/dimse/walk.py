"""The walk over a dataset's elements: from bytes to the raw values that are wanted, for the extractor and the exporter.

It hops from element to element by their lengths (PS3.5 §7) and reads values only of what is wanted. pydicom's parser
is not used: it is bounded neither in depth nor in memory, and takes ten times as long. Everything here is bounded,
whatever the bytes say: windows, elements, depth; nothing recurses.
"""

from collections.abc import Callable
from struct import Struct

UNDEFINED = 0xFFFFFFFF
DEEPEST = 128
"""Nesting of sequences. What is deeper is quarantined: it would end recursive parsers further on."""
LONGEST_VALUE = 4 * 1024
"""Bytes of one wanted value that are read at most; the rest is cut off."""
MOST_ELEMENTS = 200_000
"""Elements that are looked at closely: wanted, long, or nested."""
MOST_WINDOWS = 2_000
"""Windows of 4 KiB that are read, in one piece or in hops over long values."""
MOST_TRAILING_ELEMENTS = 5_000
MOST_TRAILING_WINDOWS = 100
"""The same beyond the last wanted element, where it only matters whether the dataset is whole."""

_WINDOW = 4096
_LONGEST_ELEMENT_HEADER = 12
# A nest that is too deep is larger than this: an item's and an element's header, eight bytes each, per level.
_SMALLEST_NEST = 16 * DEEPEST

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_DATA = 0x7FE00010

# PS3.5 §7.1.2: the first have a length of 16 bits; all others, those that are still to be invented too, of 32 bits.
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_MAY_NEST = frozenset((b"SQ", b"UN", b""))

Element = tuple[bytes, bytes]
"""A value representation, b"" where the dataset does not tell it, and the raw value."""


class BrokenDatasetError(Exception):
    """A dataset that cannot be what its sender meant; the text says what is wrong, without patient data."""


class BoundReachedError(Exception):
    """One of the bounds above is reached; the text says which."""


class _MalformedError(Exception):
    """Items and delimiters do not fit together; harmless where the length of the whole is known."""


class ByteOrder:
    """How numbers stand in an encoded dataset.

    A *code* is a tag as its four bytes read as one number, a representation's code likewise: the hot loop compares
    these, and makes nothing of what it hops over.

    Args:
        sign: "<" for little endian, ">" for big endian.
    """

    def __init__(self, sign: str) -> None:
        self.sign = sign
        self.explicit = Struct(f"{sign}HH2sH").unpack_from
        self.explicit_codes = Struct(f"{sign}LHH").unpack_from
        self.implicit_codes = Struct(f"{sign}LL").unpack_from
        self.long = Struct(f"{sign}L").unpack_from
        self.short = frozenset(int.from_bytes(vr, "little" if sign == "<" else "big") for vr in _SHORT)
        self.wide = frozenset(int.from_bytes(vr, "little" if sign == "<" else "big") for vr in _LONG)
        self.item = Struct(f"{sign}HH").pack(_ITEM >> 16, _ITEM & 0xFFFF)

    def code(self, tag: int) -> int:
        """A tag as a code, and a code as a tag."""
        return tag if self.sign == ">" else (tag & 0xFFFF) << 16 | tag >> 16


LITTLE, BIG = ByteOrder("<"), ByteOrder(">")


class Targets:
    """The elements to collect; make it once and use it for many walks.

    Args:
        tags: of the top level; not empty.
    """

    def __init__(self, tags: frozenset[int]) -> None:
        self.tags = tags
        self.highest = max(tags)
        # What the hot loop must not hop over, also when there are no representations to show it.
        self._codes = {
            order.sign: frozenset(order.code(tag) for tag in (*tags, 0, _ITEM, _ITEM_END, _SEQUENCE_END))
            for order in (LITTLE, BIG)
        }

    def codes(self, order: ByteOrder) -> frozenset[int]:
        """Codes of all elements that need a closer look."""
        return self._codes[order.sign]


def told(tag: int) -> str:
    """A tag as people write it, `GGGG,EEEE`."""
    return f"{tag >> 16:04X},{tag & 0xFFFF:04X}"


class Walker:
    """One walk over one dataset.

    Args:
        read: bytes from an offset on, at most so many.
        start: where the dataset begins.
        end: where it ends.
        window: the bytes from offset 0 on that were read already.
        order: how numbers stand.
        explicit: whether elements tell their value representation; the first element is believed when it shows
            that they do otherwise.
        targets: what is wanted.
        found: takes up what is found; it stays there when the walk breaks off.
    """

    def __init__(
        self,
        read: Callable[[int, int], bytes],
        *,
        start: int,
        end: int,
        window: bytes,
        order: ByteOrder,
        explicit: bool,
        targets: Targets,
        found: dict[int, Element],
    ) -> None:
        self._read = read
        self._start = start
        self._end = end
        self._order = order
        self._explicit = explicit
        self._targets = targets
        self._found = found
        self._tag = 0
        self._windows_left = MOST_WINDOWS
        self._elements_left = MOST_ELEMENTS
        self._data = window
        self._base = 0
        self._safe = len(window) - _LONGEST_ELEMENT_HEADER  # up to here a header can be unpacked

    def walk(self) -> None:
        """Go from the first element to the last, and collect the wanted ones.

        Raises:
            BrokenDatasetError: the dataset is cut short, or its elements do not fit together.
        """
        try:
            self._believe_first_element()
            if self._explicit:
                self._walk_explicit()
            else:
                self._walk_implicit()
        except BoundReachedError as bound:
            if self._tag <= self._targets.highest:
                raise BrokenDatasetError(f"{bound} before the end of element {told(self._targets.highest)}") from None

    def _believe_first_element(self) -> None:
        """Real senders confuse implicit and explicit; the first element shows which it is."""
        if self._end - self._start < 8:
            return
        if self._start > self._safe:
            self._load(self._start)
        index = self._start - self._base
        first = self._data[index + 4 : index + 6]
        self._explicit = _is_representation(first) if self._explicit else first in _SHORT

    # The hot loops: what is neither wanted, nor long, nor strange is hopped over at once.

    def _walk_explicit(self) -> None:
        codes, short, wide = self._targets.codes(self._order), self._order.short, self._order.wide
        unpack, unpack_long = self._order.explicit_codes, self._order.long
        data, base, safe = self._data, self._base, self._safe
        at, code = self._start, 0
        while True:
            if at > safe:
                if self._is_over(at, code):
                    return
                data, base, safe = self._data, self._base, self._safe
            code, vr, length = unpack(data, at - base)
            if code not in codes:
                if vr in short:
                    at += 8 + length
                    continue
                if vr in wide:
                    length = unpack_long(data, at - base + 8)[0]
                    if length < _SMALLEST_NEST:
                        at += 12 + length
                        continue
            at = self._step(at)
            data, base, safe = self._data, self._base, self._safe

    def _walk_implicit(self) -> None:
        codes, unpack = self._targets.codes(self._order), self._order.implicit_codes
        data, base, safe = self._data, self._base, self._safe
        at, code = self._start, 0
        while True:
            if at > safe:
                if self._is_over(at, code):
                    return
                data, base, safe = self._data, self._base, self._safe
            code, length = unpack(data, at - base)
            if length < _SMALLEST_NEST and code not in codes:
                at += 8 + length
                continue
            at = self._step(at)
            data, base, safe = self._data, self._base, self._safe

    def _is_over(self, at: int, code: int) -> bool:
        """Move the window, unless there is nothing more to see.

        Args:
            at: where the next element begins.
            code: of the last one.
        """
        self._tag = self._order.code(code)
        if at > self._end:
            raise BrokenDatasetError(_ends_inside(self._tag))
        if at == self._end:
            return True
        if self._end - at < 8:
            if any(self._read(at, 8)):
                raise BrokenDatasetError(f"the dataset ends inside the element that follows {told(self._tag)}")
            return True
        if self._tag > self._targets.highest:
            self._windows_left = min(self._windows_left, MOST_TRAILING_WINDOWS)
        self._load(at)
        return False

    # What needs a closer look.

    def _step(self, at: int) -> int:
        """Look at one element of the top level; returns where the next one begins."""
        start = at - self._base
        tag, vr, length, at = self._header(at, self._explicit)
        self._tag = tag
        if tag > self._targets.highest:
            self._elements_left = min(self._elements_left, MOST_TRAILING_ELEMENTS)
        if not tag:
            if any(self._data[start:]):
                raise BrokenDatasetError("an element 0000,0000 stands in the dataset")
            return self._end  # padding with zeros
        if tag >> 16 == 0xFFFE:
            raise BrokenDatasetError(f"{told(tag)} stands outside a sequence")
        if length == UNDEFINED:
            return self._hop_over(at, None, vr)
        if length > self._end - at:
            raise BrokenDatasetError(_ends_inside(tag))
        if tag in self._targets.tags:
            self._found[tag] = vr, self._value(at, min(length, LONGEST_VALUE))
        elif (
            length >= _SMALLEST_NEST
            and vr in _MAY_NEST
            and tag != _PIXEL_DATA
            and self._read(at, 4) == self._order.item
        ):
            return self._hop_over(at, at + length, vr)
        return at + length

    def _value(self, at: int, length: int) -> bytes:
        index = at - self._base
        value = self._data[index : index + length]
        return value if len(value) == length else self._read(at, length)

    def _load(self, at: int) -> None:
        """Move the window; behind the end of the dataset stand zeros, so that a header can always be unpacked."""
        self._windows_left -= 1
        if self._windows_left < 0:
            raise BoundReachedError(f"more than {MOST_WINDOWS * _WINDOW >> 20} MiB stand")
        data = self._read(at, _WINDOW)
        if len(data) < _LONGEST_ELEMENT_HEADER:
            data = data.ljust(_LONGEST_ELEMENT_HEADER, b"\0")
        self._data = data
        self._base = at
        self._safe = at + len(data) - _LONGEST_ELEMENT_HEADER

    def _header(self, at: int, explicit: bool) -> tuple[int, bytes, int, int]:
        """Tag, representation, length, and the place of the value."""
        self._elements_left -= 1
        if self._elements_left < 0:
            raise BoundReachedError(f"more than {MOST_ELEMENTS} elements stand")
        if at > self._safe:
            self._load(at)
        index = at - self._base
        group, element, vr, length = self._order.explicit(self._data, index)
        size = 8
        if not explicit or group == 0xFFFE or not _is_representation(vr):
            # Some senders switch to implicit in the middle; items and delimiters have no representation at all.
            vr = b""
            length = self._order.long(self._data, index + 4)[0]
        elif vr in _LONG or (vr not in _SHORT and length == 0):  # the reserved bytes of the long form
            length = self._order.long(self._data, index + 8)[0]
            size = 12
        return group << 16 | element, vr, length, at + size

    def _hop_over(self, at: int, end: int | None, vr: bytes) -> int:
        """Hop over a sequence, or over pixel data in fragments, and see how deep it is.

        Args:
            at: where its value begins.
            end: where it ends; None when its length is undefined.
            vr: its representation.

        Returns:
            Where the next element begins.
        """
        try:
            return self._hop(at, end, vr)
        except (_MalformedError, BoundReachedError) as error:
            if end is not None:
                return end
            if isinstance(error, BoundReachedError):
                raise
            raise BrokenDatasetError(str(error)) from None

    def _hop(self, at: int, end: int | None, vr: bytes) -> int:
        """The work of `_hop_over`; what has a defined length is entered only when a nest too deep fits into it."""
        limit = self._end if end is None else end
        holds_datasets = vr in _MAY_NEST and self._tag != _PIXEL_DATA
        # Each frame: whether it is a sequence (else an item), where it ends (None: at its delimiter), explicit or not.
        frames: list[tuple[bool, int | None, bool]] = [(True, end, self._explicit and vr != b"")]
        while frames:
            if len(frames) > 2 * DEEPEST:
                raise BrokenDatasetError(f"sequences are nested more than {DEEPEST} deep in element {told(self._tag)}")
            in_sequence, frame_end, explicit = frames[-1]
            if at == frame_end:
                frames.pop()
                continue
            if at + 8 > limit:
                raise _MalformedError(_ends_inside(self._tag))
            inner, inner_vr, length, at = self._header(at, explicit)
            if frame_end is None and inner == (_SEQUENCE_END if in_sequence else _ITEM_END):
                frames.pop()
                continue
            if in_sequence != (inner == _ITEM) or inner in (_ITEM_END, _SEQUENCE_END):
                raise _MalformedError(_does_not_fit(self._tag))
            inside = explicit and (in_sequence or inner_vr != b"")
            if length == UNDEFINED:
                frames.append((not in_sequence, None, inside))
                continue
            behind = at + length
            if behind > limit:
                raise _MalformedError(_ends_inside(self._tag))
            if frame_end is not None and behind > frame_end:
                raise _MalformedError(_does_not_fit(self._tag))
            nests = holds_datasets if in_sequence else inner_vr in _MAY_NEST
            if nests and length >= _SMALLEST_NEST - 8 * len(frames):
                frames.append((not in_sequence, behind, inside))
            else:
                at = behind
        return at


def _is_representation(vr: bytes) -> bool:
    return vr in _SHORT or vr in _LONG or (len(vr) == 2 and vr.isalpha() and vr.isupper())


def _ends_inside(tag: int) -> str:
    return f"the dataset ends inside element {told(tag)}"


def _does_not_fit(tag: int) -> str:
    return f"the items of element {told(tag)} do not fit together"
