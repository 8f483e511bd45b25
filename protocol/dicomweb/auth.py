"""Credentials of a DICOMweb or FHIR server as HTTP headers; they stand in no message of an error."""

import base64
import re

from protocol.errors import UsageError

AUTH_TYPES = ("None", "Basic", "Bearer")
_TOKEN = re.compile(r"[\x21-\x7e]+(?: [\x21-\x7e]+)*")  # what a header's value can hold (RFC 9110 §5.5)


def authorization(auth_type: str, auth_id: str) -> dict[str, str]:
    """Headers that authorize each request to a server; none for `None`.

    Args:
        auth_type: `None`, `Basic` or `Bearer`, in any case; empty is `None`.
        auth_id: for `Basic` the base64 text of `user:password`, or these in clear, which a colon tells; for `Bearer`
            the token.

    Raises:
        UsageError: the type is not known, or the credentials are empty or cannot stand in a header.
    """
    kind = {name.lower(): name for name in AUTH_TYPES}.get((auth_type or "None").lower())
    if kind is None:
        raise UsageError(f"{auth_type!r} is no authentication type: write one of {', '.join(AUTH_TYPES)}")
    if kind == "None":
        return {}
    token = auth_id.strip()
    if kind == "Basic" and ":" in token:  # which base64 never has
        token = base64.b64encode(auth_id.encode()).decode("ascii")
    if not _TOKEN.fullmatch(token):
        raise UsageError(f"the credentials for {kind} are missing, or have characters that HTTP does not allow")
    return {"Authorization": f"{kind} {token}"}
