"""What a DICOMweb server answers is looked at before anything is made of it."""

from http.server import BaseHTTPRequestHandler

import pytest

from actors.retriever.sources.base import DeniedError
from actors.retriever.sources.dicomweb import DicomWeb
from protocol.inference import Credentials, HttpSource, PatientStudies
from tests.http_peers import HttpPeer

_ROW = b'[{"0020000D": {"vr": "UI", "Value": ["%s"]}, "00100020": {"vr": "LO", "Value": ["P"]}}]'


class Server(HttpPeer):
    """Answers every search with one study."""

    def __init__(self, study_uid: bytes, encoding: str = "") -> None:
        self._body, self._encoding = _ROW % study_uid, encoding
        super().__init__()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "application/dicom+json")
        request.send_header("Content-Length", str(len(self._body)))
        if self._encoding:
            request.send_header("Content-Encoding", self._encoding)
        request.end_headers()
        request.wfile.write(self._body)


def studies(server: Server) -> list[str]:
    source = DicomWeb(HttpSource(interface="DICOMweb", uri=server.url, credentials=Credentials()))
    try:
        return source.studies_of(PatientStudies(patient_id="P"))
    finally:
        source.close()


@pytest.mark.parametrize("uid", [b"DOE^JOHN/../../admin?x=", b"1.2/3", b"..", b""])
def test_a_uid_that_is_none_is_no_part_of_a_path(uid: bytes) -> None:
    with Server(uid) as server:
        assert studies(server) == []
    with Server(b"1.2.3") as server:
        assert studies(server) == ["1.2.3"]


def test_what_is_compressed_is_refused() -> None:
    with Server(b"1.2.3", "gzip, gzip") as server, pytest.raises(DeniedError, match="compressed"):
        studies(server)
    with Server(b"1.2.3", "identity") as server:
        assert studies(server) == ["1.2.3"]
