"""HTTP peers of the tests' own: a FHIR server, and a proxy that records what passes and can stop in the middle."""

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

_PIECE = 64 * 1024


class HttpPeer:
    """A server on 127.0.0.1 that runs while the block lasts."""

    def __init__(self) -> None:
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                peer.answer(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # the base's name
                """Say nothing."""

        class Listener(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A peer that was killed is what these tests are about."""

        self._server = Listener(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class Asked:
    """A request as it came."""

    path: str
    headers: dict[str, str] = field(default_factory=dict)


class FhirServer(HttpPeer):
    """A FHIR server with resources in JSON and XML, strict about the media type that it is asked for.

    Args:
        token: the bearer token that it wants; "" for none.
    """

    def __init__(self, token: str = "") -> None:
        self.token = token
        self.asked: list[Asked] = []
        self.resources: dict[tuple[str, str, str], bytes] = {}
        super().__init__()

    def add(self, kind: str, identifier: str) -> None:
        """Have a resource, in both forms."""
        self.resources[kind, identifier, "json"] = (
            f'{{"resourceType": "{kind}", "id": "{identifier}", "text": "{"x" * 5000}"}}'.encode()
        )
        self.resources[kind, identifier, "xml"] = (
            f'<?xml version="1.0"?><{kind} xmlns="http://hl7.org/fhir"><id value="{identifier}"/></{kind}>'.encode()
        )

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """`/base/TYPE/ID`."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append(Asked(request.path, headers))
        _, _, kind, identifier = request.path.split("/")
        form = "json" if headers["accept"].startswith("application/fhir+json") else "xml"
        found = self.resources.get((kind, identifier, form))
        if self.token and headers.get("authorization") != f"Bearer {self.token}":
            _send(request, 401, b"{}", "application/fhir+json")
        elif found is None:
            _send(request, 404, b"{}", "application/fhir+json")
        else:
            _send(request, 200, found, f"application/fhir+{form}")


class Proxy(HttpPeer):
    """Passes requests on to a server, streaming, and records them.

    Args:
        upstream: the server's URL.
        stop: looked at before each piece of an answer is passed on, with the request's path and the bytes of its
            answer until then; true breaks the connection.
    """

    def __init__(self, upstream: str, stop: Callable[[str, int], bool] = lambda _, __: False) -> None:
        self._upstream = urlsplit(upstream)
        self.stop = stop
        self.asked: list[Asked] = []
        super().__init__()

    def take(self) -> list[Asked]:
        """The requests since the last call."""
        taken, self.asked = self.asked, []
        return taken

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Pass it on."""
        self.asked.append(Asked(request.path, {name.lower(): value for name, value in request.headers.items()}))
        assert self._upstream.hostname is not None
        upstream = http.client.HTTPConnection(self._upstream.hostname, self._upstream.port or 80, timeout=30)
        try:
            headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
            upstream.request("GET", request.path, headers=headers)
            response = upstream.getresponse()
            request.send_response(response.status)
            request.send_header("Content-Type", response.headers.get("Content-Type", ""))
            request.send_header("Transfer-Encoding", "chunked")
            request.end_headers()
            sent = 0
            while piece := response.read(_PIECE):
                if self.stop(request.path, sent):
                    request.close_connection = True
                    return
                request.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                sent += len(piece)
            request.wfile.write(b"0\r\n\r\n")
        except OSError:
            request.close_connection = True
            if upstream.sock is None:  # it was never reached
                _send(request, 502, b"", "text/plain")
        finally:
            upstream.close()


def _send(request: BaseHTTPRequestHandler, status: int, body: bytes, content_type: str) -> None:
    request.send_response(status)
    request.send_header("Content-Type", content_type)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
