"""Clara's Results Service over REST: its tasks for an agent, and what became of them."""

import time
import uuid
from collections.abc import Sequence
from typing import Any, ClassVar
from urllib.parse import quote

import httpx
import msgspec

from actors.exporter.results.base import Offer, ResultsService
from protocol.dicomweb.http import is_plain, open_client
from protocol.dicomweb.leash import Leash
from protocol.errors import RefusedError, UnavailableError
from protocol.logs import EventLogger, Repeats

_SECONDS = 10.0
_ANSWER_SECONDS = 60.0
_MOST_BYTES = 32 * 1024 * 1024
_TRANSIENT = frozenset({408, 425, 429})
_MOST_RETRIES = 1_000_000


class ClaraResults(ResultsService):
    """The service at an endpoint; any thread may use it.

    Args:
        endpoint: its URL; `/api` below it is where the tasks are, unless it ends so already.
        log: of the actor.
    """

    origin: ClassVar[str] = "clara"

    def __init__(self, endpoint: str, log: EventLogger) -> None:
        base = endpoint.rstrip("/")
        self._tasks = f"{base if base.lower().endswith('/api') else f'{base}/api'}/tasks"
        self._leash = Leash(_ANSWER_SECONDS)
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        self._client = open_client(headers, idle_seconds=_SECONDS)
        self._unreadable = Repeats(log.warning)

    def pending(self, agent: str, size: int) -> Sequence[Offer]:
        """Tasks that wait; those that cannot be read are left out and told of once a minute."""
        body = self._call("GET", f"{quote(agent, safe='')}/pending?size={size}")
        try:
            listed = msgspec.json.decode(body) if body.strip() else []
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise UnavailableError("the results service answered what is no JSON") from None
        if not isinstance(listed, list):
            raise UnavailableError("the results service answered no list of tasks")
        found = [offer for each in listed[:size] if (offer := self._offer(each, agent)) is not None]
        self._unreadable.flush()
        return found

    def succeeded(self, task_id: str) -> None:
        """Tell it."""
        self._call("PUT", f"success/{task_id}")

    def failed(self, task_id: str, *, retry_later: bool) -> None:
        """Tell it."""
        self._call("PUT", f"failure/{task_id}", {"RetryLater": retry_later})

    def close(self) -> None:
        """Close its connections."""
        self._unreadable.flush(everything=True)
        self._client.close()

    def _offer(self, each: Any, agent: str) -> Offer | None:
        """A task; names are read in any case, and numbers as text, as .NET writes them."""
        try:
            fields = {str(name).lower(): value for name, value in each.items()}
            uris = fields.get("uris") or []
            if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
                raise TypeError
            parameters = fields.get("parameters")
            offer = Offer(
                task_id=str(uuid.UUID(str(fields["taskid"]))),
                job_id=_text(fields.get("jobid")),
                payload_id=_text(fields.get("payloadid")),
                pipeline_id=_text(fields.get("pipelineid")),
                agent=agent,
                parameters=parameters if isinstance(parameters, str) else msgspec.json.encode(parameters).decode(),
                uris=tuple(dict.fromkeys(uris)),
                retries=min(max(0, int(fields.get("retries") or 0)), _MOST_RETRIES),
            )
            if "\0" in "".join((offer.job_id, offer.payload_id, offer.pipeline_id, offer.parameters, *offer.uris)):
                raise ValueError  # no text of PostgreSQL can hold it
        except (AttributeError, KeyError, TypeError, ValueError):
            self._unreadable.add("task_unreadable", agent, remedy="see the results service; other tasks go on")
            return None
        return offer

    def _call(self, method: str, path: str, body: Any = None) -> bytes:
        deadline = time.monotonic() + _ANSWER_SECONDS
        address, extensions = f"{self._tasks}/{path}", self._leash.extensions
        try:
            with self._leash.hold(), self._client.stream(method, address, json=body, extensions=extensions) as answer:
                if not is_plain(answer):
                    raise UnavailableError("the results service answers what is compressed, and was not asked for that")
                content = bytearray()
                for chunk in answer.iter_bytes():
                    content += chunk
                    if len(content) > _MOST_BYTES or time.monotonic() > deadline:
                        raise UnavailableError("the results service's answer does not end")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnavailableError(f"the results service does not answer ({type(error).__name__})") from error
        if answer.is_success:
            return bytes(content)
        told = f"the results service answered {answer.status_code} to {method}"
        if 400 <= answer.status_code < 500 and answer.status_code not in _TRANSIENT:
            raise RefusedError(told)
        raise UnavailableError(told)


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
