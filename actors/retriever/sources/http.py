"""What DICOMweb and FHIR sources have in common: one client, deadlines, and errors in words without credentials."""

import contextlib
from collections.abc import Iterator, Mapping

import httpx

from actors.retriever.sources.base import SILENCE_SECONDS, AwayError, DeniedError, paced
from protocol.dicomweb.auth import authorization
from protocol.dicomweb.http import is_plain, open_client
from protocol.dicomweb.leash import Hold, Leash
from protocol.errors import UsageError
from protocol.inference import HttpSource

_MOST_BYTES = 64 * 1024 * 1024
_AWAY = frozenset({408, 429, 502, 503, 504})
_UNTOLD = frozenset({404, 410})


class NotThereError(DeniedError):
    """The source says that it does not have it."""


class Answer:
    """What a source answers.

    Args:
        response: its beginning.
        hold: of the exchange.
    """

    def __init__(self, response: httpx.Response, hold: Hold) -> None:
        self._response = response
        self._hold = hold
        self.content_type = response.headers.get("content-type", "")

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes; raises `AwayError` when it trickles."""
        for chunk in paced(self._response.iter_bytes()):
            self._hold.extend()
            yield chunk


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
        self._leash = Leash(SILENCE_SECONDS)
        self._client = open_client({"Accept-Encoding": "identity", **headers})

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()

    @contextlib.contextmanager
    def get(self, path: str, accept: str, params: Mapping[str, str | int] | None = None) -> Iterator[Answer]:
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
        with self._leash.hold() as hold:
            try:
                with self._client.stream(
                    "GET",
                    self._base + path,
                    headers={"Accept": accept},
                    params=params,
                    extensions=self._leash.extensions,
                ) as response:
                    _check(response.status_code)
                    reached = True
                    if not is_plain(response):
                        raise DeniedError("it sends what is compressed, and was not asked for that")
                    yield Answer(response, hold)
            except httpx.InvalidURL as error:
                raise DeniedError("its URI cannot be used") from error
            except httpx.HTTPError as error:
                if hold.is_cut:
                    raise AwayError(f"it sent nothing for {SILENCE_SECONDS:g} s", reached=True) from error
                # The texts of these may hold the URI, and so a patient's ID.
                told = f"it cannot be reached, or broke off ({type(error).__name__})"
                raise AwayError(told, reached=reached) from error

    def read(self, path: str, accept: str, params: Mapping[str, str | int] | None = None) -> bytes:
        """Ask for something small; raises as `get`."""
        with self.get(path, accept, params) as answer:
            data = bytearray()
            for chunk in answer.chunks():
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
