"""A study of 3 GB by WADO-RS: what the retriever holds in memory does not grow with it."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pydicom
import pytest

from tests.gateway import Gateway, rss_peak_bytes
from tests.http_peers import HttpPeer
from tests.inference import body, by_study, dicomweb, submit, wait_retrieved
from tests.samples import make_study

_MEGABYTE = 1024 * 1024
_HUGE_BYTES = 1024 * _MEGABYTE
_INSTANCES = 4000


class HugeServer(HttpPeer):
    """Serves one study that nobody has to store: an instance of 1 GB, and 4000 of half a megabyte.

    Args:
        directory: for the instance after which all are made.
    """

    def __init__(self, directory: Path) -> None:
        study = make_study(directory, "PAT-HUGE", 1)
        ((uid, path),) = study.files.items()
        header = pydicom.dcmread(path, stop_before_pixels=True)
        self.study_uid, self._series_uid = study.uid, str(header.SeriesInstanceUID)
        self._template, self._uid = path.read_bytes(), uid.encode()
        super().__init__()

    def _instance(self, number: int) -> bytes:
        """Another UID of the same length, wherever it stands."""
        return self._template.replace(self._uid, self._named(number))

    def _named(self, number: int) -> bytes:
        return self._uid[:-5] + b"1%04d" % number

    def _parts(self) -> Iterator[bytes]:
        for number in range(_INSTANCES + 1):
            yield b"\r\n--xx\r\nContent-Type: application/dicom\r\n\r\n"
            yield self._instance(number)
            if not number:  # what follows the pixels is of no interest to whoever keeps the bytes
                yield from (bytes(_MEGABYTE) for _ in range(_HUGE_BYTES // _MEGABYTE))
        yield b"\r\n--xx--\r\n"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """A page of the list, or everything."""
        parts = urlsplit(request.path)
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        if parts.query:
            query = parse_qs(parts.query)
            start, limit = int(query["offset"][0]), int(query["limit"][0])
            numbers = range(start, min(start + limit, _INSTANCES + 1))
            rows = [
                {"0020000E": {"Value": [self._series_uid]}, "00080018": {"Value": [self._named(number).decode()]}}
                for number in numbers
            ]
            request.send_header("Content-Type", "application/dicom+json")
            pieces: Iterator[bytes] = iter([json.dumps(rows).encode()])
        else:
            assert parts.path.endswith(f"/studies/{self.study_uid}"), parts.path
            request.send_header("Content-Type", 'multipart/related; type="application/dicom"; boundary=xx')
            pieces = self._parts()
        request.end_headers()
        for piece in pieces:
            request.wfile.write(b"%x\r\n" % len(piece))
            request.wfile.write(piece)
            request.wfile.write(b"\r\n")
        request.wfile.write(b"0\r\n\r\n")


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_study_of_3_gb(tmp_path: Path) -> None:
    with HugeServer(tmp_path / "study") as server, Gateway(tmp_path / "gateway") as gateway:
        pipeline = gateway.add_pipeline("none", ["/bin/true"])
        (pid,) = gateway.pids("retriever")
        before = rss_peak_bytes(pid)
        source = dicomweb(f"{server.url}/dw")
        submit(gateway, body("HUGE", pipeline, [by_study(server.study_uid)], [source]))
        found = wait_retrieved(gateway, "HUGE", 1500.0)
        assert found["dicom"]["status"] == "Success"
        assert found["message"] == ""
        assert gateway.pids("retriever") == [pid]
        size = sum(path.stat().st_size for path in (gateway.spool / "requests").rglob("*.dcm"))
        peak = rss_peak_bytes(pid)
        print(f"{size / 1e9:.2f} GB retrieved; peak {peak / 1e6:.0f} MB, before {before / 1e6:.0f} MB")
        assert size > 3e9
        assert peak < 200e6
        (job,) = gateway.jobs(source="HUGE")
        assert job["instances"] == _INSTANCES + 1
