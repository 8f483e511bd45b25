"""Credentials become headers, or an error that does not tell them."""

import base64

import pytest

from protocol.dicomweb.auth import authorization
from protocol.errors import UsageError

ENCODED = base64.b64encode("user:pässword".encode()).decode()


@pytest.mark.parametrize(
    ("auth_type", "auth_id", "header"),
    [
        ("None", "whatever", None),
        ("", "", None),
        ("basic", ENCODED, f"Basic {ENCODED}"),
        ("Basic", "user:pässword", f"Basic {ENCODED}"),
        ("BEARER", " to.ken= ", "Bearer to.ken="),
    ],
)
def test_headers(auth_type: str, auth_id: str, header: str | None) -> None:
    assert authorization(auth_type, auth_id).get("Authorization") == header


@pytest.mark.parametrize(
    ("auth_type", "auth_id"),
    [("Digest", "secret"), ("Basic", ""), ("Bearer", "sec\r\nret"), ("Bearer", "sec\0ret"), ("Bearer", "secrét")],
)
def test_what_cannot_be_sent_is_an_error_without_the_credentials(auth_type: str, auth_id: str) -> None:
    with pytest.raises(UsageError) as error:
        authorization(auth_type, auth_id)
    assert "sec" not in str(error.value)
