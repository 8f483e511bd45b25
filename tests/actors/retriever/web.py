"""A DICOMweb server that can behave badly, and a round against it."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pydicom

from actors.retriever.outcome import Kept, Outcome
from actors.retriever.round import Round
from actors.retriever.shelf import Shelf
from actors.retriever.sources.dicomweb import DicomWeb
from actors.retriever.stock import Stock
from protocol.inference import Credentials, HttpSource, Order, Source, Wanted
from protocol.ledger import Ledger
from protocol.spool import Spool
from tests.http_peers import HttpPeer
from tests.samples import Study

SECRET = "token-that-nobody-may-see"


class WebServer(HttpPeer):
    """Serves studies.

    Args:
        studies: what it has.
    """

    def __init__(self, *studies: Study) -> None:
        self.rows: list[dict[str, str]] = []
        self.files: dict[str, bytes] = {}
        for study in studies:
            for uid, path in study.files.items():
                header = pydicom.dcmread(path, stop_before_pixels=True)
                self.files[uid] = path.read_bytes()
                self.rows.append(
                    {
                        "00080018": uid,
                        "00080050": str(header.get("AccessionNumber", "")),
                        "00100020": study.patient_id,
                        "0020000D": study.uid,
                        "0020000E": str(header.SeriesInstanceUID),
                    }
                )
        self.asked: list[str] = []
        self.ignores_keys = False
        self.ignores_offset = False
        self.lists = True
        self.status = 200
        self.html = False
        self.single = False
        self.extra_parts: list[bytes] = []
        self.breaks_after: int | None = None
        super().__init__()

    def retrieved(self) -> list[str]:
        """Paths of retrievals since the last call."""
        taken, self.asked = self.asked, []
        return [path for path in taken if "?" not in path]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """QIDO-RS and WADO-RS."""
        self.asked.append(request.path)
        parts = urlsplit(request.path)
        words = parts.path.strip("/").split("/")[1:]
        named = dict(zip(("0020000D", "0020000E", "00080018"), words[1::2], strict=False))
        rows = [row for row in self.rows if all(row[tag] == value for tag, value in named.items())]
        if self.status != 200:
            self._send(request, self.status, b"", "text/plain")
        elif self.html:
            self._send(request, 200, b"<html>sign in</html>", "text/html")
        elif parts.query:
            self._search(request, rows, parse_qs(parts.query), words)
        elif not rows:
            self._send(request, 404, b"", "text/plain")
        elif self.single and "00080018" in named:
            self._send(request, 200, self.files[rows[0]["00080018"]], "application/dicom")
        else:
            self._retrieve(request, rows)

    def _search(
        self, request: BaseHTTPRequestHandler, rows: list[dict[str, str]], query: dict[str, list[str]], words: list[str]
    ) -> None:
        if len(words) > 1 and not self.lists:
            self._send(request, 501, b"", "text/plain")
            return
        keys = {} if self.ignores_keys else {tag: values[0] for tag, values in query.items() if tag[0] == "0"}
        found = [row for row in rows if all(row[tag] == value for tag, value in keys.items())]
        if len(words) == 1:
            found = list({row["0020000D"]: row for row in found}.values())
        start = 0 if self.ignores_offset else int(query["offset"][0])
        page = found[start : start + int(query["limit"][0])]
        answer = [{tag: {"vr": "UI", "Value": [value]} for tag, value in row.items() if value} for row in page]
        self._send(
            request, 200 if answer else 204, json.dumps(answer).encode() if answer else b"", "application/dicom+json"
        )

    def _retrieve(self, request: BaseHTTPRequestHandler, rows: list[dict[str, str]]) -> None:
        bodies = [*self.extra_parts, *(self.files[row["00080018"]] for row in rows)]
        data = (
            b"".join(b"\r\n--xx\r\nContent-Type: application/dicom\r\n\r\n" + body for body in bodies) + b"\r\n--xx--"
        )
        request.send_response(200)
        request.send_header("Content-Type", 'multipart/related; type="application/dicom"; boundary=xx')
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data if self.breaks_after is None else data[: self.breaks_after])
        request.close_connection = self.breaks_after is not None

    @staticmethod
    def _send(request: BaseHTTPRequestHandler, status: int, body: bytes, content_type: str) -> None:
        request.send_response(status)
        request.send_header("Content-Type", content_type)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)


class Rounds:
    """Rounds of one request, one after another.

    Args:
        directory: of the spool and the ledger.
    """

    def __init__(self, directory: Path) -> None:
        self.spool = Spool(directory / "spool")
        self.spool.create()
        self.ledger = Ledger(f"sqlite:///{directory}/ledger.db")
        self.kept: list[Kept] = []
        self.has_room: Callable[[], bool] = lambda: True
        self.stopped: Callable[[], bool] = lambda: False

    def run(self, wanted: Wanted | tuple[Wanted, ...], *sources: Source | WebServer) -> Outcome:
        """One round; nothing of it is put on record, as when a process is killed."""
        order = Order(
            transaction_id="T",
            priority=128,
            algorithm="a",
            pipeline_id="p",
            wanted=wanted if isinstance(wanted, tuple) else (wanted,),
            sources=tuple(map(as_source, sources)),
        )
        self.kept = []
        stock = Stock(
            job_id="job",
            shelf=Shelf(self.spool, "job"),
            tags=(),
            stopped=self.stopped,
            has_room=self.has_room,
            report=self.kept.extend,
        )
        return Round(order=order, stock=stock, open_dicom=open_web).run()

    def files(self) -> set[str]:
        """What lies in the request's directory."""
        home = self.spool.requests / "job"
        return {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}


def open_web(source: Source) -> DicomWeb:
    assert isinstance(source, HttpSource)
    return DicomWeb(source)


def as_source(source: Source | WebServer) -> Source:
    if not isinstance(source, WebServer):
        return source
    return HttpSource(interface="DICOMweb", uri=f"{source.url}/dw", credentials=Credentials("Bearer", SECRET))


def opened(*studies: Study) -> Iterator[WebServer]:
    with WebServer(*studies) as server:
        yield server
