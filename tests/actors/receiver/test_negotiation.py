"""From an A-ASSOCIATE-RQ to an A-ASSOCIATE-AC."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    UserIdentityNegotiation,
)

from actors.receiver.negotiation import Proposal, decode_request, encode_acceptance, negotiate
from protocol.dimse.pdu import ProtocolError
from tests.actors.receiver import raw

JPEG = "1.2.840.10008.1.2.4.70"
PRIVATE_SYNTAX = "1.3.46.670589.33.1.4.1"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"


def body(pdu: bytes) -> bytes:
    return pdu[6:]


def request(*more: object) -> bytes:
    """An A-ASSOCIATE-RQ as pynetdicom writes it."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = raw.APPLICATION_CONTEXT
    primitive.calling_ae_title = "SENDER"
    primitive.called_ae_title = "RECEIVER"
    contexts = [
        build_context(raw.CT_IMAGE, [JPEG, raw.EXPLICIT]),
        build_context(raw.VERIFICATION, [raw.IMPLICIT]),
        build_context(FIND, [raw.IMPLICIT]),
        build_context("1.2.276.0.99", [PRIVATE_SYNTAX]),
    ]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    primitive.presentation_context_definition_list = contexts
    longest = MaximumLengthNotification()
    longest.maximum_length_received = 32768
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "1.2.3.4"
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = "PEER_1"
    primitive.user_information = [longest, implementation, version, *more]
    pdu = A_ASSOCIATE_RQ(primitive)
    encoded: bytes = pdu.encode()
    return encoded


def accept(proposal: Proposal, syntaxes: tuple[str, ...] = (raw.IMPLICIT,)) -> A_ASSOCIATE_AC:
    """The answer, as pynetdicom reads it."""
    encoded = encode_acceptance(proposal, negotiate(proposal, syntaxes), 131072)
    answer = A_ASSOCIATE_AC()
    answer.decode(encoded)
    assert struct.unpack(">BxI", encoded[:6]) == (2, len(encoded) - 6)
    return answer


def results(answer: A_ASSOCIATE_AC) -> dict[int, tuple[int, str]]:
    return {item.context_id: (item.result, item.transfer_syntax) for item in answer.presentation_context}


def test_what_pynetdicom_proposes_is_read() -> None:
    proposal = decode_request(body(request()))
    assert (proposal.called, proposal.calling) == ("RECEIVER", "SENDER")
    assert proposal.protocol_version == 1
    assert proposal.application_context == raw.APPLICATION_CONTEXT
    assert proposal.max_pdu_bytes == 32768
    assert proposal.implementation == "PEER_1"
    assert [context.context_id for context in proposal.contexts] == [1, 3, 5, 7]
    assert proposal.contexts[0].transfer_syntaxes == (JPEG, raw.EXPLICIT)
    assert not proposal.asynchronous
    assert not proposal.verification_only
    assert not proposal.storage_only


def test_storage_takes_the_first_syntax_and_other_services_are_refused() -> None:
    answer = accept(decode_request(body(request())))
    assert results(answer) == {1: (0, JPEG), 3: (0, raw.IMPLICIT), 5: (3, raw.IMPLICIT), 7: (0, PRIVATE_SYNTAX)}
    assert answer.user_information.maximum_length == 131072
    assert answer.application_context_name == raw.APPLICATION_CONTEXT
    assert (answer.called_ae_title.strip(), answer.calling_ae_title.strip()) == ("RECEIVER", "SENDER")
    assert answer.user_information.async_ops_window is None


def test_verification_only_in_the_configured_syntaxes() -> None:
    proposal = decode_request(body(request()))
    assert results(accept(proposal, (raw.EXPLICIT,)))[3][0] == 4
    assert results(accept(proposal, ()))[3][0] == 3


def test_asynchronous_operations_are_answered_one_and_one() -> None:
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 5
    window.maximum_number_operations_performed = 0
    answer = accept(decode_request(body(request(window)))).user_information.async_ops_window
    assert (answer.max_operations_invoked, answer.max_operations_performed) == (1, 1)


@pytest.mark.parametrize(
    ("scu", "scp", "result", "answered"),
    [(True, False, 0, (1, 0)), (True, True, 0, (1, 0)), (False, True, 1, (0, 0))],
)
def test_roles_we_are_scp_and_nothing_else(scu: bool, scp: bool, result: int, answered: tuple[int, int]) -> None:
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid = raw.CT_IMAGE
    role.scu_role, role.scp_role = scu, scp
    answer = accept(decode_request(body(request(role))))
    assert results(answer)[1][0] == result
    (item,) = answer.user_information.role_selection.values()
    assert (item.scu, item.scp) == answered


def test_user_identity_is_not_minded() -> None:
    identity = UserIdentityNegotiation()
    identity.user_identity_type = 1
    identity.primary_field = b"someone"
    identity.positive_response_requested = True
    assert results(accept(decode_request(body(request(identity)))))[1][0] == 0


def test_what_is_reserved_is_sent_back_as_it_came() -> None:
    pdu = bytearray(raw.associate_rq(called=b" CT", calling=b"TESTER\0"))
    pdu[42:74] = bytes(range(32))
    proposal = decode_request(body(bytes(pdu)))
    assert (proposal.called, proposal.calling) == ("CT", "TESTER")
    encoded = encode_acceptance(proposal, negotiate(proposal, ()), 16384)
    assert encoded[10:74] == pdu[10:74]


@pytest.mark.parametrize("title", [b" " * 16, b"A\xc4B", b"A\x1bB", b"A\\B", b"\0" * 16])
def test_titles_that_are_none_are_told_as_empty(title: bytes) -> None:
    assert decode_request(body(raw.associate_rq(called=title))).called == ""
    assert decode_request(body(raw.associate_rq(calling=title))).calling == ""


def test_unknown_items_are_ignored() -> None:
    unknown = raw.item(0x77, b"something")
    pdu = raw.associate_rq(raw.context(1), unknown, user=raw.user_information(unknown, raw.item(0x5F, b"\xff")))
    assert [context.context_id for context in decode_request(body(pdu)).contexts] == [1]


no_transfer = raw.item(0x20, b"\x01\0\0\0" + raw.item(0x30, raw.CT_IMAGE.encode()))
no_abstract = raw.item(0x20, b"\x01\0\0\0" + raw.item(0x40, raw.EXPLICIT.encode()))


@pytest.mark.parametrize(
    "pdu",
    [
        raw.associate_rq()[:60],
        raw.associate_rq(raw.context(2)),
        raw.associate_rq(raw.context(1), raw.context(1)),
        raw.associate_rq(no_transfer),
        raw.associate_rq(no_abstract),
        raw.associate_rq(raw.context(1, "not a uid")),
        raw.associate_rq(raw.context(1, "1.2.\xff")),
        raw.associate_rq(raw.item(0x20, b"\x01\0")),
        raw.associate_rq(raw.item(0x20, b"\x01\0\0\0" + raw.item(0x30, b"1.2", 900))),
        raw.associate_rq(raw.context(1), user=raw.item(0x50, b"", 500)),
        raw.associate_rq(raw.context(1), user=raw.item(0x50, b"\x51\0\0\x04\0\0\0\0", 500)),
        raw.associate_rq(raw.context(1), user=b""),
        raw.associate_rq(raw.context(1), user=raw.item(0x50, raw.item(0x51, b""))),
        raw.associate_rq(raw.context(1), user=raw.item(0x50, raw.item(0x53, b"\0"))),
        raw.associate_rq(raw.context(1), user=raw.item(0x50, raw.item(0x54, b"\0\xff1.2"))),
        raw.associate_rq(raw.context(1), user=raw.user_information(max_pdu=10)),
        raw.associate_rq(*[raw.context(1)] * 129),
        raw.associate_rq(raw.context(1, raw.CT_IMAGE, *["1.2"] * 300)),
        raw.associate_rq(raw.context(1), user=raw.user_information(*[raw.item(0x51, bytes(4))] * 600)),
        raw.associate_rq(b"\0"),
        raw.associate_rq(raw.item(0x33, b"")),
    ],
)
def test_malformed_requests_are_protocol_errors(pdu: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_request(body(pdu))


@given(st.binary(max_size=300), st.integers(0, 400))
def test_garbage_is_a_protocol_error_and_nothing_worse(data: bytes, keep: int) -> None:
    base = body(raw.associate_rq())
    try:
        proposal = decode_request(base[:keep] + data)
    except ProtocolError:
        return
    accept(proposal)
