"""UIDs as peers send them: their form, their padding (PS3.5 §9.1, §6.2)."""

import re

_LONGEST = 64
# PS3.5 §9.1, except that leading zeros of a component are taken, as devices send them.
_TEXT = re.compile(r"[0-9]+(?:\.[0-9]+)*")


def is_uid(text: str) -> bool:
    """Whether this can be a UID: digits and dots, at most 64 of them."""
    return len(text) <= _LONGEST and _TEXT.fullmatch(text) is not None


def is_uid_value(value: bytes) -> bool:
    """Whether these bytes, without padding, can be a UID."""
    # Each object that is received passes here: no regular expression.
    return (
        value.translate(None, b".").isdigit()
        and len(value) <= _LONGEST
        and b".." not in value
        and not value.startswith(b".")
        and not value.endswith(b".")
    )


def unpadded(value: bytes) -> bytes:
    """A UID's value without its padding, which some devices make of spaces."""
    return value.rstrip(b"\0 ")


def padded(value: bytes) -> bytes:
    """A UID's value of even length."""
    return value + b"\0" if len(value) & 1 else value
