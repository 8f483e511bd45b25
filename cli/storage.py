"""What holds the spool's space, for `status`: asked of the API, without which `status` works just as well."""

import os
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from protocol.birth import settings_file

_PATIENCE_SECONDS = 1.0
_ON_ALL_ADDRESSES = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 # where the API is reached from here


class Holder(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What one AE title has in the spool for one reason."""

    ae_title: str
    what: str
    instances: int
    bytes: int


class _Use(msgspec.Struct):
    holders: list[Holder]


class _Api(msgspec.Struct):
    bind: str
    port: int


class _Settings(msgspec.Struct):
    api: _Api


def holders(runtime: Path) -> list[Holder]:
    """What holds the space, the largest first; nothing when the API does not tell within a second.

    Args:
        runtime: of the gateway that is meant; it tells where its API listens.
    """
    try:
        parts = urlsplit(api_address(runtime))
        token = os.environ.get("DICOM_ADAPTER_TOKEN")
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=_PATIENCE_SECONDS)
        try:
            connection.request("GET", "/api/storage", headers={"Authorization": f"Bearer {token}"} if token else {})
            answer = connection.getresponse()
            return msgspec.json.decode(answer.read(), type=_Use).holders if answer.status == 200 else []
        finally:
            connection.close()
    except (OSError, HTTPException, ValueError, msgspec.MsgspecError):  # a port that is none is a ValueError
        return []


def api_address(runtime: Path) -> str:
    """Where the API of a gateway listens.

    Args:
        runtime: its runtime directory.

    Raises:
        OSError, msgspec.MsgspecError: that is no runtime directory of a gateway that runs, or may not be read.
    """
    api = msgspec.json.decode(settings_file(runtime).read_bytes(), type=_Settings).api
    host = _ON_ALL_ADDRESSES.get(api.bind, api.bind)
    return f"http://[{host}]:{api.port}" if ":" in host else f"http://{host}:{api.port}"
