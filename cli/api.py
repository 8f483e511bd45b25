"""The REST API as the commands use it: one call, its answer, and its errors as sentences."""

import itertools
import os
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import quote

import typer

from protocol.errors import AdapterError, NotFoundError, RefusedError, UnavailableError, UsageError

DEFAULT_URL = "http://127.0.0.1:5000"
Url = Annotated[
    str, typer.Option("--url", envvar="DICOM_ADAPTER_URL", help="Address of the REST API.", show_default=True)
]
_TIMEOUT_SECONDS = 60.0
_PAGE_ENTRIES = 500


def call(url: str, method: str, *path: str, body: Any = None, query: dict[str, str] | None = None) -> Any:
    """Call the API; returns what its JSON says.

    Args:
        url: of the API.
        method: of HTTP.
        path: components below `/api`; each is escaped.
        body: sent as JSON.
        query: parameters; empty ones are left out.

    Raises:
        UnavailableError: nobody answers, or the answer is that a part is missing now.
        NotFoundError: there is no such thing.
        RefusedError: the API will not do it.
        UsageError: a component is none, or the token or address cannot be one.
    """
    import httpx

    for component in path:
        if component.strip() in ("", ".", ".."):
            raise UsageError(f"{component!r} is no name and no ID: give one")
    token = os.environ.get("DICOM_ADAPTER_TOKEN", "").strip()
    if not (token.isascii() and token.isprintable()):
        raise UsageError("DICOM_ADAPTER_TOKEN holds characters that a token cannot have: letters, digits and ._~+/-")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    address = "/".join([url.rstrip("/"), "api", *(quote(component, safe="") for component in path)])
    parameters = {name: value for name, value in (query or {}).items() if value}
    try:
        answer = httpx.request(method, address, json=body, params=parameters, headers=headers, timeout=_TIMEOUT_SECONDS)
    except (httpx.UnsupportedProtocol, httpx.InvalidURL):
        raise UsageError(f"{url!r} is no address of an API: write --url http://HOST:PORT") from None
    except httpx.TransportError as error:
        raise UnavailableError(
            f"the API at {url} does not answer ({str(error) or type(error).__name__}): start dicom-adapter, or name "
            "its address with --url or DICOM_ADAPTER_URL"
        ) from error
    if answer.is_success:
        return answer.json() if answer.content else None
    raise _error(answer.status_code, _detail(answer), url)


def call_pages(
    url: str, *path: str, key: str, query: dict[str, str] | None = None, at_once: int | None = None
) -> Iterator[dict[str, Any]]:
    """Everything of a list that the API gives in pages, the newest first.

    Args:
        url: of the API.
        path: components below `/api`.
        key: the field that identifies an entry: what comes new while we read moves old entries to later pages.
        query: further parameters.
        at_once: how many are likely to be read.

    Raises:
        AdapterError: as `call`.
    """
    seen: set[str] = set()
    # One more than is read tells whether there are more.
    entries = min(at_once + 1 if at_once else _PAGE_ENTRIES, _PAGE_ENTRIES)
    for offset in itertools.count(0, entries):
        place = {"limit": str(entries), "offset": str(offset)}
        page = call(url, "GET", *path, query={**(query or {}), **place})
        for entry in page:
            if entry[key] not in seen:
                seen.add(entry[key])
                yield entry
        if len(page) < entries:
            return


def _detail(answer: Any) -> str:
    """What problem details (RFC 9457) say; else the status line."""
    try:
        problem = answer.json()
        told = problem.get("detail") or problem.get("title")
    except (ValueError, AttributeError):
        told = ""
    return str(told or f"{answer.status_code} {answer.reason_phrase}")


def _error(status: int, detail: str, url: str) -> AdapterError:
    if status in (401, 403):
        return RefusedError(f"the API at {url} refused this: {detail}; put its token into DICOM_ADAPTER_TOKEN")
    if status == 404:
        return NotFoundError(detail)
    if status >= 500:
        return UnavailableError(f"the API at {url} cannot do this now: {detail}")
    return RefusedError(detail)
