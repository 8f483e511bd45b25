"""From an A-ASSOCIATE-RQ to an A-ASSOCIATE-AC: what is proposed, what of it is accepted (PS3.8 §9.3.2, §9.3.3).

A request is walked in place and in its bounds: pynetdicom's decoder takes 20 ms for the 128 contexts of some senders,
in which nothing else is received, and writes to the log what it cannot decode. The choice among what is proposed is
ours too, since storage takes any transfer syntax; pynetdicom encodes the answer's user information.
"""

import functools
import re
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydicom.uid import UID
from pynetdicom.pdu_items import (
    AsynchronousOperationsWindowSubItem,
    ImplementationClassUIDSubItem,
    ImplementationVersionNameSubItem,
    MaximumLengthSubItem,
    SCP_SCU_RoleSelectionSubItem,
    UserInformationItem,
)

from actors.receiver.sop_classes import is_storage
from protocol.dimse import (
    APPLICATION_CONTEXT,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    VERIFICATION,
    items,
)
from protocol.dimse.pdu import AbortReason, PduType, ProtocolError
from protocol.dimse.uids import is_uid, unpadded

_ACCEPTED, _USER_REJECTION, _ABSTRACT_SYNTAX_REFUSED, _TRANSFER_SYNTAXES_REFUSED = 0, 1, 3, 4

_CONTEXT_RESULT = struct.Struct(">BxHBxBx")
_PDU_START = struct.Struct(">BxIHxx")
_MOST_SYNTAXES = 256  # of one context; the standard knows about 60
_LONGEST_VERSION = 16
_REMEMBERED, _LONGEST_REMEMBERED = 16, 16 * 1024  # requests, and bytes of each: 1 MB in all
_AE_TITLE = re.compile(rb"[\x20-\x5b\x5d-\x7e]*")  # PS3.5 §6.2: no control characters, no backslash
_SMALLEST_PDU = 128  # a peer that takes less cannot take a response in reasonable pieces


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """A presentation context as proposed."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an A-ASSOCIATE-RQ says.

    Args:
        called, calling: AE titles without padding; "" when blank or not of an AE title's characters.
        protocol_version: bit field (PS3.8 §9.3.2).
        application_context: UID.
        contexts: in the order of the request.
        max_pdu_bytes: what the peer can take; 0 is no limit.
        roles: not to be changed: SOP class to whether the peer wants to be its SCU, its SCP.
        asynchronous: whether it wants to negotiate asynchronous operations.
        implementation: the peer's implementation version name, or its class UID.
        reserved: bytes that the answer repeats (titles and what follows them).
    """

    called: str
    calling: str
    protocol_version: int
    application_context: str
    contexts: tuple[ProposedContext, ...]
    max_pdu_bytes: int
    roles: dict[str, tuple[bool, bool]]
    asynchronous: bool
    implementation: str
    reserved: bytes

    @property
    def verification_only(self) -> bool:
        """Whether nothing but Verification is proposed."""
        return all(context.abstract_syntax == VERIFICATION for context in self.contexts)

    @property
    def storage_only(self) -> bool:
        """Whether no context is for Verification."""
        return all(context.abstract_syntax != VERIFICATION for context in self.contexts)


@dataclass(frozen=True, slots=True)
class AcceptedContext:
    """A presentation context that both sides may use."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str


@dataclass(slots=True)
class Agreement:
    """What of a proposal is accepted.

    Args:
        results: by context ID: result, and the transfer syntax that the answer names.
        contexts: the accepted ones by their ID.
    """

    results: dict[int, tuple[int, str]] = field(default_factory=dict)
    contexts: dict[int, AcceptedContext] = field(default_factory=dict)


def decode_request(body: bytes) -> Proposal:
    """Read an A-ASSOCIATE-RQ; a device sends the same one each time, so the last ones are remembered.

    Args:
        body: the PDU without its header of six bytes.

    Raises:
        ProtocolError: it cannot be understood, or proposes what cannot be answered.
    """
    return _remembered(body) if len(body) <= _LONGEST_REMEMBERED else _decode(body)


def _decode(body: bytes) -> Proposal:
    if len(body) < items.FIXED_LENGTH:
        raise _invalid("A-ASSOCIATE-RQ cut short")
    application_context = ""
    contexts: list[ProposedContext] = []
    user: _UserInformation | None = None
    for kind, start, stop in items.walk_items(body, items.FIXED_LENGTH, len(body)):
        if kind == items.CONTEXT_RQ:
            contexts.append(_context(body, start, stop))
        elif kind == items.APPLICATION_CONTEXT:
            application_context = _uid(body[start:stop])
        elif kind == items.USER_INFORMATION:
            user = _user_information(body, start, stop)
    if user is None:
        raise _invalid("no user information")
    proposal = Proposal(
        called=_title(body[4:20]),
        calling=_title(body[20:36]),
        protocol_version=int.from_bytes(body[:2], "big"),
        application_context=application_context,
        contexts=tuple(contexts),
        max_pdu_bytes=user.max_pdu_bytes,
        roles=user.roles,
        asynchronous=user.asynchronous,
        implementation=user.version or user.implementation_class,
        reserved=body[4 : items.FIXED_LENGTH],
    )
    _check_contexts(proposal)
    return proposal


_remembered = functools.lru_cache(maxsize=_REMEMBERED)(_decode)


def _invalid(what: str) -> ProtocolError:
    return ProtocolError(AbortReason.INVALID_PARAMETER, f"A-ASSOCIATE-RQ: {what}")


def _uid(value: bytes) -> str:
    """A UID without the padding that it should not have (PS3.8 annex F)."""
    return unpadded(value).decode("latin-1")


def _context(body: bytes, start: int, stop: int) -> ProposedContext:
    """A presentation context item (PS3.8 §9.3.2.2)."""
    if stop - start < 4:
        raise _invalid("a presentation context is cut short")
    abstract_syntax = ""
    transfer_syntaxes: list[str] = []
    for kind, from_, to in items.walk_items(body, start + 4, stop):
        if kind == items.TRANSFER_SYNTAX and to > from_:
            transfer_syntaxes.append(_uid(body[from_:to]))
            if len(transfer_syntaxes) > _MOST_SYNTAXES:
                raise _invalid("too many transfer syntaxes")
        elif kind == items.ABSTRACT_SYNTAX:
            abstract_syntax = _uid(body[from_:to])
    return ProposedContext(body[start], abstract_syntax, tuple(transfer_syntaxes))


@dataclass(slots=True)
class _UserInformation:
    max_pdu_bytes: int = 0
    implementation_class: str = ""
    version: str = ""
    asynchronous: bool = False
    roles: dict[str, tuple[bool, bool]] = field(default_factory=dict)


def _user_information(body: bytes, start: int, stop: int) -> _UserInformation:
    """The sub-items that are used (PS3.8 annex D, PS3.7 annex D.3.3)."""
    user = _UserInformation()
    for kind, from_, to in items.walk_items(body, start, stop):
        value = body[from_:to]
        if kind == items.MAXIMUM_LENGTH:
            _check_length(value)
            user.max_pdu_bytes = int.from_bytes(value, "big")
        elif kind == items.IMPLEMENTATION_CLASS:
            user.implementation_class = uid if is_uid(uid := _uid(value)) else ""
        elif kind == items.IMPLEMENTATION_VERSION:
            user.version = value[:_LONGEST_VERSION].decode("ascii", "replace").strip()
        elif kind == items.ASYNCHRONOUS:
            _check_length(value)
            user.asynchronous = True
        elif kind == items.ROLE:
            length = int.from_bytes(value[:2], "big")
            sop_class, wanted = _uid(value[2 : 2 + length]), value[2 + length :]
            if len(wanted) != 2 or not is_uid(sop_class):
                raise _invalid("a role selection is malformed")
            user.roles[sop_class] = (bool(wanted[0]), bool(wanted[1]))
    return user


def _check_length(value: bytes) -> None:
    if len(value) != 4:
        raise _invalid("a sub-item of user information is not four bytes long")


def _title(value: bytes) -> str:
    """An AE title; leading and trailing spaces do not count (PS3.8 §9.3.2); some devices pad with NUL."""
    value = value.strip(b" \0")
    return value.decode("ascii") if _AE_TITLE.fullmatch(value) else ""


def _check_contexts(proposal: Proposal) -> None:
    """Refuse what cannot be answered context by context (PS3.8 §9.3.2.2)."""
    ids = [context.context_id for context in proposal.contexts]
    if not ids:
        wrong = "no presentation context is proposed"
    elif len(ids) > items.MOST_CONTEXTS:
        wrong = "more than 128 presentation contexts"
    elif len(set(ids)) < len(ids) or not all(context_id % 2 for context_id in ids):
        wrong = "a presentation context ID is even or repeated"
    elif not all(is_uid(context.abstract_syntax) for context in proposal.contexts):
        wrong = "a presentation context has no abstract syntax"
    elif not all(context.transfer_syntaxes for context in proposal.contexts):
        wrong = "a presentation context has no transfer syntax"
    elif 0 < proposal.max_pdu_bytes < _SMALLEST_PDU:
        wrong = f"the peer takes PDUs of {proposal.max_pdu_bytes} bytes only"
    else:
        return
    raise _invalid(wrong)


def negotiate(proposal: Proposal, verification_syntaxes: Collection[str]) -> Agreement:
    """Choose among what is proposed.

    Storage takes the first transfer syntax of each context, whatever it is: the sender's own preference, and the
    bytes are kept as they come.

    Args:
        proposal: of the peer.
        verification_syntaxes: transfer syntaxes for C-ECHO; empty when Verification is not offered.
    """
    agreement = Agreement()
    for context in proposal.contexts:
        abstract = context.abstract_syntax
        syntaxes = [syntax for syntax in context.transfer_syntaxes if is_uid(syntax)]
        result = _ACCEPTED
        if abstract == VERIFICATION and verification_syntaxes:
            syntaxes = [syntax for syntax in syntaxes if syntax in verification_syntaxes]
        elif abstract == VERIFICATION or not is_storage(abstract):
            result = _ABSTRACT_SYNTAX_REFUSED
        if result == _ACCEPTED and not syntaxes:
            result = _TRANSFER_SYNTAXES_REFUSED
        if result == _ACCEPTED and not proposal.roles.get(abstract, (True, False))[0]:
            result = _USER_REJECTION  # the peer will not be an SCU, and we are none
        # The syntax of a context that is not accepted is not significant (PS3.8 §9.3.3.2), but some want one.
        chosen = (syntaxes or list(context.transfer_syntaxes))[0]
        agreement.results[context.context_id] = (result, chosen)
        if result == _ACCEPTED:
            agreement.contexts[context.context_id] = AcceptedContext(context.context_id, abstract, chosen)
    return agreement


def encode_acceptance(proposal: Proposal, agreement: Agreement, max_pdu_bytes: int) -> bytes:
    """The A-ASSOCIATE-AC.

    Args:
        proposal: what it answers.
        agreement: the results.
        max_pdu_bytes: the longest PDU that we take.
    """
    parts = [items.encode_item(items.APPLICATION_CONTEXT, APPLICATION_CONTEXT.encode("ascii"))]
    for context_id, (result, transfer_syntax) in agreement.results.items():
        syntax = items.encode_item(items.TRANSFER_SYNTAX, transfer_syntax.encode("ascii", "replace"))
        parts += (_CONTEXT_RESULT.pack(items.CONTEXT_AC, len(syntax) + 4, context_id, result), syntax)
    user = UserInformationItem()
    user.user_data = list(_user_items(proposal, max_pdu_bytes))
    parts.append(user.encode())
    encoded = b"".join(parts)
    # Titles and what follows them are sent back as they came (PS3.8 §9.3.3).
    return _PDU_START.pack(PduType.A_ASSOCIATE_AC, items.FIXED_LENGTH + len(encoded), 1) + proposal.reserved + encoded


def _user_items(proposal: Proposal, max_pdu_bytes: int) -> Iterator[Any]:
    longest = MaximumLengthSubItem()
    longest.maximum_length_received = max_pdu_bytes
    yield longest
    implementation = ImplementationClassUIDSubItem()
    implementation.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    yield implementation
    if proposal.asynchronous:
        window = AsynchronousOperationsWindowSubItem()
        window.maximum_number_operations_invoked = 1
        window.maximum_number_operations_performed = 1
        yield window
    for sop_class, (scu, _) in proposal.roles.items():
        role = SCP_SCU_RoleSelectionSubItem()
        role.sop_class_uid = UID(sop_class)
        role.scu_role = int(scu)
        role.scp_role = 0
        yield role
    version = ImplementationVersionNameSubItem()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    yield version
