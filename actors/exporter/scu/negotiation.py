"""An association as its requestor sees it: what is proposed, and what the acceptor answers (PS3.8 §9.3.2 to §9.3.4).

Each presentation context has one SOP class and one transfer syntax, those of the files: nothing is converted, so
nothing else could be sent. The answer is read strictly and in its bounds.
"""

import struct
from collections.abc import Sequence

import msgspec

from protocol.dimse import APPLICATION_CONTEXT, IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, items
from protocol.dimse.pdu import AbortReason, PduType, ProtocolError
from protocol.dimse.uids import unpadded

OUR_MAX_PDU_BYTES = 16384
"""What comes to us are responses: they are short."""
Pair = tuple[str, str]
"""A SOP class and a transfer syntax."""

_REQUEST = struct.Struct(">BxIHxx16s16s32x")
_CONTEXT = struct.Struct("B3x")
_SMALLEST_PDU_BYTES = 8  # a header, and an even number of bytes
_LONGEST_VERSION = 16

_CONTEXT_RESULTS = {
    1: "it rejects them",
    2: "it rejects them without a reason",
    3: "it does not take this SOP class",
    4: "it does not take this transfer syntax",
}
_REJECTIONS = {  # PS3.8 §9.3.4: source, reason
    (1, 1): "no reason given",
    (1, 2): "the application context is not supported",
    (1, 3): "it does not know our AE title",
    (1, 7): "it does not know the called AE title",
    (2, 1): "no reason given",
    (2, 2): "the protocol version is not supported",
    (3, 1): "temporary congestion",
    (3, 2): "its limit of associations is reached",
}


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """What an acceptor answered.

    Args:
        contexts: context IDs of the pairs that it takes.
        refused: why it takes no others, by pair.
        max_pdu_bytes: what it can take; 0 is no limit.
        implementation: its version name, or its class UID.
    """

    contexts: dict[Pair, int]
    refused: dict[Pair, str]
    max_pdu_bytes: int
    implementation: str


def encode_request(calling: str, called: str, pairs: Sequence[Pair]) -> bytes:
    """An A-ASSOCIATE-RQ that proposes each pair in a context of its own; the n-th has the ID 2n + 1.

    Args:
        calling: our AE title.
        called: the peer's.
        pairs: at most 128.
    """
    parts = [items.encode_item(items.APPLICATION_CONTEXT, APPLICATION_CONTEXT.encode("ascii"))]
    for number, (abstract, transfer) in enumerate(pairs):
        syntaxes = items.encode_item(items.ABSTRACT_SYNTAX, abstract.encode("ascii")) + items.encode_item(
            items.TRANSFER_SYNTAX, transfer.encode("ascii")
        )
        parts.append(items.encode_item(items.CONTEXT_RQ, _CONTEXT.pack(2 * number + 1) + syntaxes))
    user = (
        items.encode_item(items.MAXIMUM_LENGTH, struct.pack(">I", OUR_MAX_PDU_BYTES))
        + items.encode_item(items.IMPLEMENTATION_CLASS, IMPLEMENTATION_CLASS_UID.encode("ascii"))
        + items.encode_item(items.IMPLEMENTATION_VERSION, IMPLEMENTATION_VERSION_NAME.encode("ascii"))
    )
    parts.append(items.encode_item(items.USER_INFORMATION, user))
    body = b"".join(parts)
    titles = called.encode("ascii", "replace").ljust(16), calling.encode("ascii", "replace").ljust(16)
    return _REQUEST.pack(PduType.A_ASSOCIATE_RQ, items.FIXED_LENGTH + len(body), 1, *titles) + body


def decode_acceptance(body: bytes, pairs: Sequence[Pair]) -> Agreement:
    """Read an A-ASSOCIATE-AC.

    Args:
        body: the PDU without its header.
        pairs: what was proposed.

    Raises:
        ProtocolError: it is malformed, answers nothing that was proposed, or takes no PDU in which anything fits.
    """
    if len(body) < items.FIXED_LENGTH:
        raise _invalid("it is cut short")
    results: dict[int, tuple[int, str]] = {}
    max_pdu_bytes, implementation = 0, ""
    for kind, start, stop in items.walk_items(body, items.FIXED_LENGTH, len(body)):
        if kind == items.CONTEXT_AC:
            if stop - start < 4:
                raise _invalid("a presentation context is cut short")
            results[body[start]] = (body[start + 2], _transfer_syntax(body, start + 4, stop))
        elif kind == items.USER_INFORMATION:
            max_pdu_bytes, implementation = _user_information(body, start, stop)
    contexts, refused = {}, {}
    for number, pair in enumerate(pairs):
        result, transfer_syntax = results.pop(2 * number + 1, (-1, ""))
        if result == 0 and transfer_syntax == pair[1]:
            contexts[pair] = 2 * number + 1
        elif result == 0:
            refused[pair] = "it accepts another transfer syntax than was proposed"
        else:
            refused[pair] = _CONTEXT_RESULTS.get(result, "it does not answer for them")
    if results or (len(refused) == len(pairs) and all("not answer" in reason for reason in refused.values())):
        raise _invalid("it answers for other presentation contexts than were proposed")
    if 0 < max_pdu_bytes < _SMALLEST_PDU_BYTES:
        raise _invalid(f"the peer takes PDUs of {max_pdu_bytes} bytes only")
    return Agreement(contexts=contexts, refused=refused, max_pdu_bytes=max_pdu_bytes, implementation=implementation)


def rejection(body: bytes) -> str:
    """What an A-ASSOCIATE-RJ says (PS3.8 §9.3.4), in words."""
    if len(body) != 4:
        return "without a reason that can be read"
    _, result, source, reason = body
    words = _REJECTIONS.get((source, reason), f"source {source}, reason {reason}")
    return f"{'for now' if result == 2 else 'permanently'}: {words}"


def _invalid(what: str) -> ProtocolError:
    return ProtocolError(AbortReason.INVALID_PARAMETER, f"A-ASSOCIATE-AC: {what}")


def _transfer_syntax(body: bytes, at: int, end: int) -> str:
    for kind, start, stop in items.walk_items(body, at, end):
        if kind == items.TRANSFER_SYNTAX:
            return unpadded(body[start:stop]).decode("latin-1")
    return ""


def _user_information(body: bytes, at: int, end: int) -> tuple[int, str]:
    max_pdu_bytes, implementation_class, version = 0, "", ""
    for kind, start, stop in items.walk_items(body, at, end):
        if kind == items.MAXIMUM_LENGTH:
            if stop - start != 4:
                raise _invalid("the maximum length is not four bytes long")
            max_pdu_bytes = int.from_bytes(body[start:stop], "big")
        elif kind == items.IMPLEMENTATION_CLASS:
            implementation_class = unpadded(body[start:stop][:64]).decode("ascii", "replace")
        elif kind == items.IMPLEMENTATION_VERSION:
            version = body[start:stop][:_LONGEST_VERSION].decode("ascii", "replace").strip()
    return max_pdu_bytes, version or implementation_class
