"""The gate in front of all routes: Host, bearer token, origin, kind and size of what is sent, time to send it.

A request that a proxy on this machine passes on comes from beyond loopback, whatever its socket says.
"""

import asyncio
import hmac
import ipaddress
import logging
import os
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPReceiveMessage, Message, Receive, Scope, Send

from actors.api import problems
from actors.api.problems import ProblemError
from protocol.config import Settings
from protocol.logs import EventLogger, Repeats

MAX_BODY_BYTES = 1024 * 1024
BODY_SECONDS = 30.0
_PROXIED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
_JSON = ("application/json", "text/json")
# Refusals that tell of a peer's fault, and not of ordinary work such as asking for what is not there.
_TOLD = frozenset({400, 401, 403, 408, 413, 415})


class Token:
    """The bearer token that is configured, read again when its file has changed.

    Args:
        settings: the settings in force.
    """

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self._settings = settings
        self._log = EventLogger("adapter.api")
        self._seen: tuple[str, int, int, int] | None = None
        self._from_file = ""
        self._unreadable = False

    def current(self) -> str:
        """The token; "" when none is configured, or its file cannot be read."""
        api = self._settings().api
        if api.token or not api.token_file:
            return api.token or ""
        try:
            status = os.stat(api.token_file)
            seen = (api.token_file, status.st_ino, status.st_mtime_ns, status.st_size)
            if seen != self._seen:
                with open(api.token_file, encoding="ascii") as file:
                    self._from_file = file.read(4096).strip()
                self._seen, self._unreadable = seen, False
        except (OSError, UnicodeDecodeError) as error:
            if not self._unreadable:
                self._log.error("token_unreadable", file=api.token_file, reason=type(error).__name__)
            self._seen, self._from_file, self._unreadable = None, "", True
        return self._from_file


class Gate:
    """Wraps an application: what does not pass is answered with problem details and never reaches a route.

    Args:
        app: what is behind the gate.
        settings: the settings in force.
        refused: writes that a peer was refused; the repeats of one are summed up.
    """

    def __init__(self, app: ASGIApp, settings: Callable[[], Settings], refused: Repeats) -> None:
        self._app = app
        self._refused = refused
        self._settings = settings
        self._token = Token(settings)
        self._log = EventLogger("adapter.api")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status, reason = 0, "see the answer"

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self.check(scope["method"], scope["client"], headers)
            if b"%00" in scope["raw_path"] or b"%00" in scope["query_string"]:
                raise ProblemError(400, "the path or the query holds a NUL character")
        except ProblemError as error:
            reason = error.problem.detail
            await _answer(watched, error)
        else:
            await self._app(scope, _bounded(receive, started + BODY_SECONDS), watched)
        if status in _TOLD:
            peer = scope["client"][0] if scope["client"] else "unknown"
            self._refused.add("request_refused", peer, method=scope["method"], status=status, reason=reason)
        if self._log.enabled(logging.DEBUG):
            took = round((time.monotonic() - started) * 1000, 1)
            self._log.debug("request", method=scope["method"], path=scope["path"], status=status, milliseconds=took)

    def check(self, method: str, client: tuple[str, int] | None, headers: Mapping[str, str]) -> None:
        """Check all that can be known before the body is read.

        Args:
            method: of the request.
            client: the peer's address and port.
            headers: with names in lower case.

        Raises:
            ProblemError: 400, 401, 403, 413 or 415.
        """
        settings = self._settings()
        host = headers.get("host", "")
        if not host_allowed(host, settings.allowed_hosts):
            raise ProblemError(400, f"the host {host[:100]!r} is not served here: add it to AllowedHosts")
        self._check_token(client, headers, settings)
        if "origin" in headers and not _same_site(headers["origin"], host, settings.allowed_hosts):
            raise ProblemError(
                403, "this comes from a page of another site: name this host in AllowedHosts to serve it"
            )
        if method in ("POST", "PUT"):
            _check_body_headers(headers)

    def _check_token(self, client: tuple[str, int] | None, headers: Mapping[str, str], settings: Settings) -> None:
        if settings.api.allow_anonymous:
            return
        if _is_loopback(client) and not any(name in headers for name in _PROXIED):
            return
        token = self._token.current()
        if not token:
            raise ProblemError(
                401,
                "beyond loopback a bearer token is needed, and none is configured: set DicomAdapter.api.token or "
                ".tokenFile, or .allowAnonymous if everyone who reaches this port may use it",
                headers={"WWW-Authenticate": "Bearer"},
            )
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            raise ProblemError(
                401,
                "beyond loopback a bearer token is needed: send the header Authorization: Bearer TOKEN with the one "
                "of DicomAdapter.api.token",
                headers={"WWW-Authenticate": 'Bearer error="invalid_token"' if scheme else "Bearer"},
            )


def host_allowed(header: str, allowed: tuple[str, ...]) -> bool:
    """Whether a Host header, with or without port, is among names, `*.name` patterns, or `*`."""
    if "*" in allowed:
        return True
    name = _host_name(header)
    return any(
        name.endswith(pattern[1:]) and len(name) > len(pattern) - 1
        if pattern.startswith("*.")
        else name == _host_name(pattern)
        for pattern in allowed
    )


def _host_name(header: str) -> str:
    """A Host header without port and brackets, in lower case."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.rpartition(":")[0].lower() if header.count(":") == 1 else header.lower()


def _same_site(origin: str, host: str, allowed: tuple[str, ...]) -> bool:
    """Whether a browser's page of this origin may change something here.

    A page of our own has our host as its origin. That alone is not enough where any host is served: a name that its
    owner lets point to this machine (DNS rebinding) must be named in the settings.
    """
    if urlsplit(origin).netloc.lower() != host.lower():
        return False
    name = _host_name(host)
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return host_allowed(host, tuple(pattern for pattern in allowed if pattern != "*"))
    return True


def _is_loopback(client: tuple[str, int] | None) -> bool:
    if client is None:
        return False
    try:
        address = ipaddress.ip_address(client[0].partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _check_body_headers(headers: Mapping[str, str]) -> None:
    length = headers.get("content-length", "")
    if length.isdigit() and int(length[:20]) > MAX_BODY_BYTES:
        raise ProblemError(413, f"the body is larger than {MAX_BODY_BYTES} bytes", headers={"Connection": "close"})
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise ProblemError(415, f"Content-Encoding {encoding[:40]!r} is not taken: send the body as it is")
    if length == "0" or (not length and "transfer-encoding" not in headers):
        return
    media_type, _, parameters = headers.get("content-type", "").partition(";")
    kind = media_type.strip().lower()
    if kind not in _JSON and not (kind.startswith("application/") and kind.endswith("+json")):
        raise ProblemError(415, f"Content-Type {media_type[:80]!r} is not taken: send application/json")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise ProblemError(415, f"the character set {charset[:40]!r} is not taken: send UTF-8")


def _bounded(receive: Receive, deadline: float) -> Receive:
    """Bound a body's size and the time that its sender may take."""
    taken = 0
    complete = False

    async def bounded() -> HTTPReceiveMessage:
        nonlocal taken, complete
        if complete:  # what comes now is the peer's leaving, which may take as long as the answer
            return await receive()  # type: ignore[return-value] # no websockets here
        try:
            message = await asyncio.wait_for(receive(), max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise ProblemError(
                408, f"the body did not come in {BODY_SECONDS:g} s", headers={"Connection": "close"}
            ) from None
        if message["type"] == "http.request":
            taken += len(message["body"])
            complete = not message["more_body"]
            if taken > MAX_BODY_BYTES:
                raise ProblemError(
                    413, f"the body is larger than {MAX_BODY_BYTES} bytes", headers={"Connection": "close"}
                )
        return message  # type: ignore[return-value] # no websockets here

    return bounded


async def _answer(send: Send, error: ProblemError) -> None:
    body, headers = problems.encode(error)
    told = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    told.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": error.problem.status, "headers": told})
    await send({"type": "http.response.body", "body": body, "more_body": False})
