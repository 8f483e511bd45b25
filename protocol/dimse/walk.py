"""The walk over a dataset's elements: from bytes to the raw values that are wanted, for the extractor and the exporter.

It hops from element to element by their lengths (PS3.5 §7) and reads values only of what is wanted. pydicom's parser
is not used: it is bounded neither in depth nor in memory, and takes ten times as long. Everything here is bounded,
whatever the bytes say: windows, elements, depth; nothing recurses.
"""

from collections.abc import Callable

from protocol.dimse.encoding import ITEM, ITEM_END, LONG, SEQUENCE_END, SHORT, ByteOrder, Targets, told

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

_PIXEL_DATA = 0x7FE00010

_MAY_NEST = frozenset((b"SQ", b"UN", b""))

Element = tuple[bytes, bytes]
"""A value representation, b"" where the dataset does not tell it, and the raw value."""

Run = tuple[bytes, dict[int, Element], int]
"""Some elements that were walked over: their bytes, what is wanted of them, and the last one's code."""

Runs = dict[tuple[str, bool], dict[bytes, Run]]
"""Runs by byte order and whether explicit, then by their first tag as it stands. Where the same bytes stand at an
element's beginning again, as they do in most of a series' header, there is nothing to be found out. Only for walks with
the same targets."""

_RUN_ELEMENTS = 8
_LONGEST_RUN = 4 * 1024
_MOST_RUNS = 64


class BrokenDatasetError(Exception):
    """A dataset that cannot be what its sender meant; the text says what is wrong, without patient data."""


class BoundReachedError(Exception):
    """One of the bounds above is reached; the text says which."""


class _MalformedError(Exception):
    """Items and delimiters do not fit together; harmless where the length of the whole is known."""


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
        runs: of walks over what is probably similar; it is filled.
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
        runs: Runs | None = None,
    ) -> None:
        self._read = read
        self._start = start
        self._end = end
        self._order = order
        self._explicit = explicit
        self._targets = targets
        self._found = found
        self._runs = runs
        self._tag = 0
        self._code = 0  # of the last element
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
            hop = self._hop_explicit if self._explicit else self._hop_implicit
            if self._runs is None:
                at = self._start
                while at <= self._safe or not self._is_over(at):
                    at = hop(at, MOST_ELEMENTS)
            else:
                self._walk_runs(self._runs.setdefault((self._order.sign, self._explicit), {}), hop)
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
        self._explicit = _is_representation(first) if self._explicit else first in SHORT

    def _walk_runs(self, runs: dict[bytes, Run], hop: Callable[[int, int], int]) -> None:
        at, found = self._start, self._found
        while True:
            if at > self._safe and self._is_over(at):
                return
            data, index = self._data, at - self._base
            tag = data[index : index + 4]
            known = runs.get(tag)
            if known is not None and data.startswith(known[0], index):
                at += len(known[0])
                if known[1]:
                    found.update(known[1])
                self._code = known[2]
                continue
            first, self._found = at, {}
            try:
                at = hop(at, _RUN_ELEMENTS)
            finally:
                found.update(self._found)
            run = self._data[first - self._base : at - self._base] if first >= self._base else b""
            # Where a bound was reached, or zeros fill the rest, it matters what comes next.
            if len(run) == at - first <= _LONGEST_RUN and self._code and self._elements_left > 0:
                if len(runs) >= _MOST_RUNS:
                    runs.clear()
                runs[tag] = run, self._found, self._code

    # The hot loops: what is neither wanted, nor long, nor strange is hopped over at once.

    def _hop_explicit(self, at: int, most: int) -> int:
        """Hop over elements, within the window; returns where the next one begins."""
        codes, short, wide = self._targets.codes(self._order), self._order.short, self._order.wide
        unpack, unpack_long = self._order.explicit_codes, self._order.long
        data, base, safe = self._data, self._base, self._safe
        code = self._code
        for _ in range(most):
            if at > safe:
                break
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
        self._code = code
        return at

    def _hop_implicit(self, at: int, most: int) -> int:
        """As `_hop_explicit`."""
        codes, unpack = self._targets.codes(self._order), self._order.implicit_codes
        data, base, safe = self._data, self._base, self._safe
        code = self._code
        for _ in range(most):
            if at > safe:
                break
            code, length = unpack(data, at - base)
            if length < _SMALLEST_NEST and code not in codes:
                at += 8 + length
                continue
            at = self._step(at)
            data, base, safe = self._data, self._base, self._safe
        self._code = code
        return at

    def _is_over(self, at: int) -> bool:
        """Move the window, unless there is nothing more to see.

        Args:
            at: where the next element begins.
        """
        self._tag = self._order.code(self._code)
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
        elif vr in LONG or (vr not in SHORT and length == 0):  # the reserved bytes of the long form
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
            if frame_end is None and inner == (SEQUENCE_END if in_sequence else ITEM_END):
                frames.pop()
                continue
            if in_sequence != (inner == ITEM) or inner in (ITEM_END, SEQUENCE_END):
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
    return vr in SHORT or vr in LONG or (len(vr) == 2 and vr.isalpha() and vr.isupper())


def _ends_inside(tag: int) -> str:
    return f"the dataset ends inside element {told(tag)}"


def _does_not_fit(tag: int) -> str:
    return f"the items of element {told(tag)} do not fit together"
