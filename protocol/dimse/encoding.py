"""How elements of a dataset are encoded (PS3.5 §7): representations, byte order, tags; and which a walk looks for."""

from struct import Struct

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

# PS3.5 §7.1.2: the first have a length of 16 bits; all others, those that are still to be invented too, of 32 bits.
SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())


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
        self.short = frozenset(int.from_bytes(vr, "little" if sign == "<" else "big") for vr in SHORT)
        self.wide = frozenset(int.from_bytes(vr, "little" if sign == "<" else "big") for vr in LONG)
        self.item = Struct(f"{sign}HH").pack(ITEM >> 16, ITEM & 0xFFFF)

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
            order.sign: frozenset(order.code(tag) for tag in (*tags, 0, ITEM, ITEM_END, SEQUENCE_END))
            for order in (LITTLE, BIG)
        }

    def codes(self, order: ByteOrder) -> frozenset[int]:
        """Codes of all elements that need a closer look."""
        return self._codes[order.sign]


def told(tag: int) -> str:
    """A tag as people write it, `GGGG,EEEE`."""
    return f"{tag >> 16:04X},{tag & 0xFFFF:04X}"
