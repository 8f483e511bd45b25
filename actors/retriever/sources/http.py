"""What DICOMweb and FHIR sources have in common: one client, deadlines, and errors in words without credentials."""

import contextlib
from collections.abc import Iterator, Mapping

import httpx

from actors.retriever.sources.base import AwayError, DeniedError, paced
from protocol.dicomweb.auth import authorization
from protocol.dicomweb.http import open_client
from protocol.errors import UsageError
from protocol.inference import HttpSource

_MOST_BYTES = 64 * 1024 * 1024
_AWAY = frozenset({408, 429, 502, 503, 504})
_UNTOLD = frozenset({404, 410})


class NotThereError(DeniedError):
    """The source says that it does not have it."""


class HttpCalls:
    """Calls to one source.

    Args:
        source: where and as whom.
    """

    def __init__(self, source: HttpSource) -> None:
        self._base = source.uri
        try:
            headers = authorization(source.credentials.auth_type, source.credentials.auth_id)
        except UsageError as error:
            raise DeniedError(str(error)) from None
        # What is compressed could be a thousand times as large.
        self._client = open_client({"Accept-Encoding": "identity", **headers})

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()

    @contextlib.contextmanager
    def get(self, path: str, accept: str, params: Mapping[str, str | int] | None = None) -> Iterator[httpx.Response]:
        """Ask for something, and read it as a stream.

        Args:
            path: below the base, with its slash.
            accept: media type.
            params: of the query.

        Raises:
            AwayError: the source cannot be reached, breaks off, or cannot do it now.
            NotThereError: it has none of it.
            DeniedError: it does not give it.
        """
        reached = False
        try:
            with self._client.stream("GET", self._base + path, headers={"Accept": accept}, params=params) as response:
                _check(response.status_code)
                reached = True
                yield response
        except httpx.InvalidURL as error:
            raise DeniedError("its URI cannot be used") from error
        except httpx.HTTPError as error:
            # The texts of these may hold the URI, and so a patient's ID.
            raise AwayError(f"it cannot be reached, or broke off ({type(error).__name__})", reached=reached) from error

    def read(self, path: str, accept: str, params: Mapping[str, str | int] | None = None) -> bytes:
        """Ask for something small; raises as `get`."""
        with self.get(path, accept, params) as response:
            data = bytearray()
            for chunk in paced(response.iter_bytes()):
                data += chunk
                if len(data) > _MOST_BYTES:
                    raise DeniedError(f"its answer is larger than {_MOST_BYTES} bytes")
            return bytes(data)


def _check(status: int) -> None:
    if status in _UNTOLD:
        raise NotThereError("it has none of it")
    if status in _AWAY:
        raise AwayError(f"it answered {status}: it cannot do it now")
    if status in (401, 403):
        raise DeniedError(f"it answered {status}: check authType and authID")
    if not 200 <= status < 300:
        raise DeniedError(f"it answered {status}")
