"""The HTTP client for servers that are not ours: DICOMweb, FHIR, and whatever else gets or gives patient data.

Nothing is taken from the environment: a proxy variable that was set for something else would lead patient data
through a third machine, and a `.netrc` would add credentials that nobody configured. Servers' certificates are
checked against the system's store, where a hospital's own authority is installed (OpenSSL's `SSL_CERT_FILE` counts).
"""

import ssl
from collections.abc import Mapping

import httpx

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 60.0
"""Between two signs of life of a server that has something to send or to take."""
_USER_AGENT = "dicom-adapter"


def timeouts(idle_seconds: float = IDLE_SECONDS) -> httpx.Timeout:
    """Deadlines of each wait of a call; a call as a whole is bounded by its caller, who knows how much it moves."""
    return httpx.Timeout(idle_seconds, connect=min(CONNECT_SECONDS, idle_seconds))


def is_plain(response: httpx.Response) -> bool:
    """Whether a body is as it came: what is compressed could be a thousand times as large, and is not asked for."""
    return response.headers.get("content-encoding", "identity").strip().lower() in ("", "identity")


def open_client(headers: Mapping[str, str], *, idle_seconds: float = IDLE_SECONDS) -> httpx.Client:
    """A client that trusts the system's certificate store and nothing of the environment; redirects are not followed.

    Args:
        headers: of every request, such as those of `protocol.dicomweb.auth`.
        idle_seconds: deadline of each wait.
    """
    return httpx.Client(
        headers={"User-Agent": _USER_AGENT, **headers},
        timeout=timeouts(idle_seconds),
        trust_env=False,
        verify=ssl.create_default_context(),
    )


def open_async_client(headers: Mapping[str, str], *, idle_seconds: float = IDLE_SECONDS) -> httpx.AsyncClient:
    """The same for asynchronous callers."""
    return httpx.AsyncClient(
        headers={"User-Agent": _USER_AGENT, **headers},
        timeout=timeouts(idle_seconds),
        trust_env=False,
        verify=ssl.create_default_context(),
    )
