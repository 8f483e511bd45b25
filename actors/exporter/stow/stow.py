"""The STOW-RS sender: files in batches, streamed as they are, and what the server says of each of them.

A batch is one request. All of it runs in an event loop of the calling thread, so that each request has one deadline,
however slowly a server takes or gives its bytes.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

import httpx
import msgspec

from actors.exporter.part10 import DicomFile, NotDicomError, read_file
from actors.exporter.sender import DestinationDownError, Outcome, OutgoingFile, Report, Sender
from actors.exporter.stow.verdict import Next, outcome, told, what_next
from protocol.config.settings import Scu
from protocol.dicomweb.auth import authorization
from protocol.dicomweb.http import open_async_client
from protocol.dicomweb.store import LONGEST_ANSWER_BYTES, StoreBody, read_answer
from protocol.errors import StorageError

BATCH_FILES = 10
_MOST_TROUBLES = 3
"""Requests in a row that end in trouble on the server's side."""
_LONGEST_PAUSE_SECONDS = 10.0
"""That a server may ask for, and get while the thread waits."""
_PROBE_TAKES = frozenset((200, 204))


class StowDestination(msgspec.Struct, frozen=True, kw_only=True):
    """Where to send.

    Args:
        url: of the DICOMweb service; `/studies` follows it.
        auth_type: `None`, `Basic` or `Bearer`.
        auth_id: see `protocol.dicomweb.auth`.
    """

    url: str
    auth_type: str = "None"
    auth_id: str = ""


class StowDeadlines(msgspec.Struct, frozen=True, kw_only=True):
    """How long is waited for a server.

    Args:
        idle_seconds: for any sign of life.
        request_seconds: for a request from its begin to its answer's end, beside the time that its bytes may take.
        slowest_bytes_per_second: what a request has to travel with.
    """

    idle_seconds: float = 60.0
    request_seconds: float = 120.0
    slowest_bytes_per_second: float = 16_000.0


class _Outgoing(msgspec.Struct, frozen=True):
    file: OutgoingFile
    dicom: DicomFile


class _Answer(msgspec.Struct, frozen=True):
    """An answer, whole."""

    status: int
    content_type: str
    body: bytes
    retry_after: str


class _TroubleError(Exception):
    """A request that ended without an answer; the next one may fare better."""


class StowSender(Sender):
    """Delivers by STOW-RS.

    Args:
        destination: the server.
        settings: not used yet; every sender is made alike.
        deadlines: of every wait.
    """

    def __init__(
        self, destination: StowDestination, settings: Scu | None = None, deadlines: StowDeadlines | None = None
    ) -> None:
        del settings
        self._destination = destination
        self._deadlines = deadlines or StowDeadlines()
        self._url = destination.url.rstrip("/")
        self._troubles = 0
        self._answered = False

    def deliver(
        self, files: Sequence[OutgoingFile], report: Callable[[Report], None], stopping: threading.Event
    ) -> None:
        """See `Sender`."""
        outgoing = []
        for file in files:
            if stopping.is_set():
                return
            try:
                outgoing.append(_Outgoing(file, read_file(file.path)))
            except NotDicomError as error:
                report(Report(uri=file.uri, outcome=Outcome.REFUSED, reason=str(error)))
            except OSError as error:
                reason = f"the file cannot be read: {(error.strerror or type(error).__name__).lower()}"
                report(Report(uri=file.uri, outcome=Outcome.FAILED, reason=reason))
        if outgoing:
            asyncio.run(self._deliver(outgoing, report, stopping))

    def probe(self) -> str:
        """See `Sender`: a query for one study (QIDO-RS), or the server's options where it answers no queries."""
        return asyncio.run(self._probe())

    async def _deliver(
        self, files: Sequence[_Outgoing], report: Callable[[Report], None], stopping: threading.Event
    ) -> None:
        batches = deque(files[first : first + BATCH_FILES] for first in range(0, len(files), BATCH_FILES))
        async with self._client() as client:
            while batches and not stopping.is_set():
                batch = batches.popleft()
                try:
                    answer = await self._store(client, batch, stopping)
                except _TroubleError as error:
                    self._trouble(str(error))
                    self._again_or_failed(batch, batches, report, f"the request broke: {error}")
                    if not batches and not self._answered:
                        raise self._down(str(error)) from None
                    continue
                except StorageError as error:
                    self._again_or_failed(batch, batches, report, str(error))
                    continue
                self._answered = True
                said = read_answer(answer.content_type, answer.body)
                match what_next(answer.status, len(batch), said):
                    case Next.DOWN:
                        raise self._down(told(answer.status))
                    case Next.END:
                        rest = [*batch, *(outgoing for other in batches for outgoing in other)]
                        _report(rest, report, Outcome.REFUSED, told(answer.status))
                        return
                    case Next.ALONE:
                        self._count(answer.status)
                        batches.extendleft([outgoing] for outgoing in reversed(batch))
                    case Next.JUDGE:
                        self._count(answer.status)
                        for outgoing in batch:
                            uid = outgoing.dicom.sop_instance
                            _report([outgoing], report, *outcome(answer.status, uid, said, empty=not answer.body))

    def _again_or_failed(
        self,
        batch: Sequence[_Outgoing],
        batches: "deque[Sequence[_Outgoing]]",
        report: Callable[[Report], None],
        reason: str,
    ) -> None:
        """Send each file of a batch alone, so that the one that is the reason is found; that one has failed."""
        if len(batch) > 1:
            batches.extendleft([outgoing] for outgoing in reversed(batch))
        else:
            _report(batch, report, Outcome.FAILED, reason)

    def _count(self, status: int) -> None:
        if status >= 500:
            self._trouble(told(status))
        else:
            self._troubles = 0

    def _trouble(self, reason: str) -> None:
        self._troubles += 1
        if self._troubles >= _MOST_TROUBLES:
            raise self._down(reason)

    async def _store(self, client: httpx.AsyncClient, batch: Sequence[_Outgoing], stopping: threading.Event) -> _Answer:
        """Send a batch; once more when the server asks for a short pause."""
        sizes = [outgoing.dicom.size for outgoing in batch]
        body = StoreBody([outgoing.file.path for outgoing in batch], sizes)
        seconds = self._deadlines.request_seconds + sum(sizes) / self._deadlines.slowest_bytes_per_second
        answer = await self._request(client, "POST", seconds, body)
        pause = int(answer.retry_after) if answer.retry_after.isdecimal() and len(answer.retry_after) < 5 else None
        if answer.status in (429, 503) and pause is not None and pause <= _LONGEST_PAUSE_SECONDS:
            ends = time.monotonic() + pause
            while time.monotonic() < ends and not stopping.is_set():
                await asyncio.sleep(min(0.1, pause))
            if not stopping.is_set():
                answer = await self._request(client, "POST", seconds, body)
        return answer

    async def _request(
        self, client: httpx.AsyncClient, method: str, seconds: float, body: StoreBody | None = None
    ) -> _Answer:
        """One request and its answer.

        Raises:
            DestinationDownError: nobody is there.
            StorageError: a file is the trouble.
            _TroubleError: the connection broke, the answer was none of HTTP, or it did not come in time.
        """
        headers = body.headers if body else {"Accept": "application/dicom+json"}
        query = {} if body else {"limit": "1"}
        content = _chunks(body) if body else None
        try:
            async with (
                asyncio.timeout(seconds),
                client.stream(
                    method, f"{self._url}/studies", headers=headers, params=query, content=content
                ) as response,
            ):
                data = bytearray()
                async for chunk in response.aiter_raw():  # nothing is inflated
                    data += chunk
                    if len(data) > LONGEST_ANSWER_BYTES:
                        raise _TroubleError("its answer is too long")
        except httpx.ConnectTimeout:
            raise self._down("no connection in time") from None
        except (TimeoutError, httpx.TimeoutException):
            raise _TroubleError("it does not answer in time, or takes what is sent too slowly") from None
        except (httpx.UnsupportedProtocol, httpx.InvalidURL):
            raise self._down("its address does not begin with http:// or https://") from None
        except httpx.ConnectError as error:
            raise self._down(f"no connection: {error}") from None
        except httpx.HTTPError as error:
            raise _TroubleError(f"the connection broke, or this is no HTTP ({type(error).__name__})") from None
        content_type = response.headers.get("Content-Type", "")
        return _Answer(response.status_code, content_type, bytes(data), response.headers.get("Retry-After", ""))

    async def _probe(self) -> str:
        started = time.monotonic()
        async with self._client() as client:
            try:
                answer = await self._request(client, "GET", self._deadlines.idle_seconds)
                if answer.status not in _PROBE_TAKES:
                    options = await self._request(client, "OPTIONS", self._deadlines.idle_seconds)
                    if options.status in _PROBE_TAKES and answer.status in (400, 404, 405, 406, 501):
                        answer = options
            except _TroubleError as error:
                raise self._down(str(error)) from None
        if answer.status not in _PROBE_TAKES:
            raise self._down(told(answer.status))
        if answer.content_type.startswith("text/html"):
            raise self._down("what answers there is a page for people, no DICOMweb service")
        return f"{self._shown()} answered in {(time.monotonic() - started) * 1000:.0f} ms"

    def _client(self) -> httpx.AsyncClient:
        headers = authorization(self._destination.auth_type, self._destination.auth_id)
        headers["Accept-Encoding"] = "identity"
        return open_async_client(headers, idle_seconds=self._deadlines.idle_seconds)

    def _down(self, reason: str) -> DestinationDownError:
        return DestinationDownError(f"{self._shown()}: {reason}")

    def _shown(self) -> str:
        """The address without credentials, which some write into it."""
        scheme, _, rest = self._url.rpartition("://")
        host, slash, path = rest.partition("/")
        return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


async def _chunks(body: StoreBody) -> AsyncIterator[bytes]:
    for chunk in body:
        yield chunk


def _report(files: Sequence[_Outgoing], report: Callable[[Report], None], said: Outcome, reason: str) -> None:
    for outgoing in files:
        uid = outgoing.dicom.sop_instance
        report(Report(uri=outgoing.file.uri, outcome=said, sop_instance_uid=uid, reason=reason))
