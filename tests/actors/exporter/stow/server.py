"""A STOW-RS server of the tests' own, which answers what a test wants, and remembers what it was sent."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

import pydicom
from pydicom.filebase import DicomBytesIO

from protocol.dicomweb.multipart import read_parts


class Reply(NamedTuple):
    """What is answered to one request; `status` 0 closes the connection without a word."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/dicom+json"
    headers: tuple[tuple[str, str], ...] = ()


class Request(NamedTuple):
    """What was sent: headers, and the objects in it, by SOP Instance UID."""

    method: str
    path: str
    headers: dict[str, str]
    objects: dict[str, bytes]


Answering = Callable[[Request], Reply]


def names(stored: list[str], failed: dict[str, int]) -> dict[str, Any]:
    """The Store Instances Response in the DICOM JSON Model."""
    answer: dict[str, Any] = {}
    if stored:
        items = [{"00081155": {"vr": "UI", "Value": [uid]}} for uid in stored]
        answer["00081199"] = {"vr": "SQ", "Value": items}
    if failed:
        items = [
            {"00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [reason]}}
            for uid, reason in failed.items()
        ]
        answer["00081198"] = {"vr": "SQ", "Value": items}
    return answer


def as_json(stored: list[str], failed: dict[str, int] | None = None) -> bytes:
    return json.dumps(names(stored, failed or {})).encode()


def as_xml(stored: list[str], failed: dict[str, int]) -> bytes:
    """The same in the Native DICOM Model."""
    body = ""
    for tag, element in names(stored, failed).items():
        items = ""
        for number, item in enumerate(element["Value"], 1):
            values = "".join(
                f'<DicomAttribute tag="{inner}" vr="{value["vr"]}"><Value number="1">{value["Value"][0]}</Value>'
                "</DicomAttribute>"
                for inner, value in item.items()
            )
            items += f'<Item number="{number}">{values}</Item>'
        body += f'<DicomAttribute tag="{tag}" vr="SQ">{items}</DicomAttribute>'
    return f'<?xml version="1.0"?><NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">{body}</NativeDicomModel>'.encode()


class StowServer:
    """Runs until its block ends.

    Args:
        answer: what to answer to each request, in threads.
    """

    def __init__(self, answer: Answering) -> None:
        self.requests: list[Request] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                objects = {}
                if data:
                    for part in read_parts([data], self.headers["Content-Type"]):
                        body = b"".join(part)
                        dataset = pydicom.dcmread(DicomBytesIO(body), stop_before_pixels=True)
                        objects[str(dataset.SOPInstanceUID)] = body
                request = Request(self.command, self.path, dict(self.headers.items()), objects)
                outer.requests.append(request)
                reply = answer(request)
                if not reply.status:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.content_type)
                self.send_header("Content-Length", str(len(reply.body)))
                for name, value in reply.headers:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            do_GET = do_POST = do_OPTIONS = _serve  # noqa: N815 # names of the base class

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # name of the base class
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/dicom-web"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
