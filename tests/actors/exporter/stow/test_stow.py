"""STOW-RS to a real Orthanc, and to a server that answers whatever a test wants."""

import base64
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from actors.exporter.sender import DestinationDownError
from actors.exporter.stow import StowDeadlines, StowDestination, StowSender
from protocol.errors import UsageError
from tests.actors.exporter.sending import Delivery, scu_settings
from tests.actors.exporter.stow.server import Reply, Request, StowServer, as_json, as_xml
from tests.peers import free_port, orthanc
from tests.samples import Study, convert, dataset_bytes, make_huge, make_study

DEADLINES = StowDeadlines(idle_seconds=1.0, request_seconds=2.0)


def sender(url: str, auth_type: str = "None", auth_id: str = "", deadlines: StowDeadlines = DEADLINES) -> StowSender:
    return StowSender(StowDestination(url=url, auth_type=auth_type, auth_id=auth_id), scu_settings(), deadlines)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("study") / "study", "PAT-STOW", 25, rows=64)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as ports:
        yield f"http://127.0.0.1:{ports['http']}"


def all_stored(request: Request) -> Reply:
    return Reply(body=as_json(list(request.objects)))


def test_orthanc_has_everything_as_it_was(archive: str, tmp_path: Path, study: Study) -> None:
    other = make_study(tmp_path / "plain", "PAT-STOW-2", 2, rows=64)
    compressed = convert(other, tmp_path / "jls", "1.2.840.10008.1.2.4.80")
    stow = sender(f"{archive}/dicom-web/", deadlines=StowDeadlines())
    assert "answered in" in stow.probe()
    sent = {**study.files, **compressed.files}
    assert Delivery(stow, sent.values()).counts == {"delivered": 27}
    with httpx.Client(base_url=archive) as client:
        for uid, path in sent.items():
            (found,) = client.post("/tools/lookup", content=uid).json()
            data = client.get(f"/instances/{found['ID']}/file").content
            stored = tmp_path / "stored.dcm"
            stored.write_bytes(data)
            assert dataset_bytes(stored) == dataset_bytes(path)


def test_batches_credentials_and_bytes(study: Study) -> None:
    encoded = base64.b64encode(b"user:secret").decode()
    with StowServer(all_stored) as server:
        for auth_type, auth_id in (("None", "x"), ("Basic", encoded), ("Bearer", "token")):
            assert Delivery(sender(server.url, auth_type, auth_id), study.files.values()).counts == {"delivered": 25}
    assert [len(request.objects) for request in server.requests] == [10, 10, 5] * 3
    assert [request.headers.get("Authorization") for request in server.requests[::3]] == [
        None,
        f"Basic {encoded}",
        "Bearer token",
    ]
    assert {request.path for request in server.requests} == {"/dicom-web/studies"}
    for request in server.requests[:3]:
        assert all(data == study.files[uid].read_bytes() for uid, data in request.objects.items())


def mixed(encode: Callable[[list[str], dict[str, int]], bytes], status: int = 202) -> Callable[[Request], Reply]:
    """Of each batch the first is stored, the second and third failed, and nothing is said of the others."""

    def answer(request: Request) -> Reply:
        stored, refused, failed, *_ = request.objects
        kind = "application/dicom+xml" if encode is as_xml else "application/dicom+json"
        return Reply(status, encode([stored], {refused: 0x0122, failed: 0xA700}), kind)

    return answer


@pytest.mark.parametrize("encode", [as_json, as_xml])
def test_each_instance_has_its_own_result(study: Study, encode: Callable[..., bytes]) -> None:
    with StowServer(mixed(encode)) as server:
        delivery = Delivery(sender(server.url), study.part(0, 4))
    assert [report.outcome.value for report in delivery.reports] == ["delivered", "refused", "failed", "failed"]
    assert [report.sop_instance_uid for report in delivery.reports] == list(study.files)[:4]
    assert "0x0122" in delivery.reports[1].reason
    assert "0xA700" in delivery.reports[2].reason
    assert "does not name" in delivery.reports[3].reason


@pytest.mark.parametrize(
    ("reply", "counts"),
    [
        (Reply(200, b""), {"delivered": 3}),
        (Reply(202, b""), {"failed": 3}),
        (Reply(200, b"<html><body>Welcome</body></html>", "text/html"), {"failed": 3}),
        (Reply(200, b"[" * 100_000), {"failed": 3}),
        (Reply(200, b'<!DOCTYPE x [<!ENTITY a "b">]><NativeDicomModel/>', "application/dicom+xml"), {"failed": 3}),
        (Reply(200, b"{}"), {"failed": 3}),
        (Reply(200, b'{"00081199":{"Value":[null,{"00081155":[]},{"00081155":{"Value":[7]}}]}}'), {"failed": 3}),
        (Reply(400, b"no"), {"refused": 3}),
        (Reply(409, b""), {"refused": 3}),
        (Reply(413, b"<html/>", "text/html"), {"refused": 3}),
        (Reply(401, b""), {"refused": 3}),
        (Reply(404, b"<html/>", "text/html"), {"refused": 3}),
    ],
)
def test_what_an_answer_means(study: Study, reply: Reply, counts: dict[str, int]) -> None:
    with StowServer(lambda _: reply) as server:
        delivery = Delivery(sender(server.url), study.part(0, 3))
    assert delivery.counts == counts
    assert not delivery.down


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504, 507, 302])
def test_a_server_that_cannot_now_is_down_and_nothing_is_reported(study: Study, status: int) -> None:
    with StowServer(lambda _: Reply(status, b"", headers=(("Location", "http://elsewhere/"),))) as server:
        delivery = Delivery(sender(server.url), study.files.values())
    assert delivery.counts == {}
    assert f"answered {status}" in delivery.down
    assert len(server.requests) == 1


def test_a_short_pause_that_the_server_asks_for_is_given(study: Study) -> None:
    replies = iter([Reply(503, headers=(("Retry-After", "0"),)), Reply(200)])
    with StowServer(lambda _: next(replies)) as server:
        assert Delivery(sender(server.url), study.part(0, 3)).counts == {"delivered": 3}
    with StowServer(lambda _: Reply(429, headers=(("Retry-After", "3600"),))) as server:
        assert "429" in Delivery(sender(server.url), study.part(0, 3)).down


@pytest.mark.parametrize("status", [400, 409, 413, 500, 0])
def test_one_bad_object_does_not_spoil_its_batch(study: Study, status: int) -> None:
    bad = list(study.files)[4]

    def answer(request: Request) -> Reply:
        return Reply(status) if bad in request.objects else all_stored(request)

    with StowServer(answer) as server:
        delivery = Delivery(sender(server.url), study.files.values())
    assert delivery.counts == {"delivered": 24, "failed" if status in (0, 500) else "refused": 1}
    assert not delivery.down
    assert [len(request.objects) for request in server.requests] == [10, *[1] * 10, 10, 5]


@pytest.mark.parametrize("status", [500, 0])
def test_a_server_that_is_always_in_trouble_is_down(study: Study, status: int) -> None:
    with StowServer(lambda _: Reply(status)) as server:
        delivery = Delivery(sender(server.url), study.files.values())
    assert delivery.counts in ({}, {"failed": 1})
    assert delivery.down
    assert len(server.requests) == 3


def test_what_is_no_dicom_is_refused_and_the_others_go_on(tmp_path: Path, study: Study) -> None:
    (text,) = (tmp_path / "text",)
    text.write_text("x")
    with StowServer(all_stored) as server:
        delivery = Delivery(sender(server.url), [text, tmp_path / "missing", *study.part(0, 2)])
    assert delivery.counts == {"refused": 1, "failed": 1, "delivered": 2}


def test_a_stop_ends_after_the_request_that_is_under_way(study: Study) -> None:
    with StowServer(all_stored) as server:
        delivery = Delivery(sender(server.url), study.files.values(), stop_after=1)
    assert delivery.counts == {"delivered": 10}


def test_addresses_and_credentials_that_cannot_be() -> None:
    for url in (
        f"http://127.0.0.1:{free_port()}/",
        "ftp://host/x",
        "nonsense",
        "http://user:secret@[::1]:1/a?b=secret",
    ):
        with pytest.raises(DestinationDownError) as error:
            sender(url).probe()
        assert "secret" not in str(error.value)
    with pytest.raises(UsageError):
        sender("http://127.0.0.1:1", "Digest", "x").probe()


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(401), "credentials"),
        (Reply(404), "nothing at this address"),
        (Reply(500), "500"),
        (Reply(200, b"<html/>", "text/html; charset=utf-8"), "page for people"),
        (Reply(0), "broke"),
    ],
)
def test_a_probe_says_what_is_wrong(reply: Reply, says: str) -> None:
    with StowServer(lambda _: reply) as server, pytest.raises(DestinationDownError, match=says):
        sender(server.url).probe()


def test_a_server_without_queries_is_probed_by_its_options() -> None:
    with StowServer(lambda request: Reply(200 if request.method == "OPTIONS" else 404)) as server:
        assert "answered" in sender(server.url).probe()


def test_a_proxy_of_the_environment_is_not_used(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with StowServer(all_stored) as server:
        assert Delivery(sender(server.url), study.part(0, 1)).counts == {"delivered": 1}


class Raw:
    """A TCP server that does with each connection what a test says.

    Args:
        serve: is given the connection, in a thread of its own.
    """

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._serve = serve
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._safely, args=(connection,), daemon=True).start()

    def _safely(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._serve(connection)
            except OSError:
                return

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _silent(connection: socket.socket) -> None:
    connection.settimeout(10)
    while connection.recv(65536):
        pass


def _drops(connection: socket.socket) -> None:
    ends = time.monotonic() + 10
    connection.recv(65536)
    connection.settimeout(0.1)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while time.monotonic() < ends:
        connection.sendall(b"X")
        try:
            connection.recv(65536)
        except TimeoutError:
            continue


def _deaf(connection: socket.socket) -> None:
    threading.Event().wait(10)
    del connection


@pytest.mark.parametrize("serve", [_silent, _drops, _deaf])
def test_every_wait_has_an_end(tmp_path: Path, serve: Callable[[socket.socket], None]) -> None:
    huge = make_huge(tmp_path / "huge" / "huge.dcm", "PAT-HUGE", 20_000_000)
    deadlines = StowDeadlines(idle_seconds=1.0, request_seconds=1.5, slowest_bytes_per_second=40_000_000)
    started = time.monotonic()
    with Raw(serve) as server:
        delivery = Delivery(sender(server.url, deadlines=deadlines), huge.files.values())
    assert delivery.counts == {"failed": 1}
    assert "does not answer in time" in delivery.down
    assert time.monotonic() - started < 5


def test_an_object_that_hangs_the_server_does_not_hold_up_the_others(study: Study) -> None:
    bad = list(study.files)[1]

    def answer(request: Request) -> Reply:
        if bad in request.objects:
            threading.Event().wait(1.0)
        return all_stored(request)

    with StowServer(answer) as server:
        delivery = Delivery(sender(server.url, deadlines=StowDeadlines(idle_seconds=0.5)), study.part(0, 4))
    assert delivery.counts == {"delivered": 3, "failed": 1}
    assert not delivery.down


@pytest.mark.parametrize(
    "said",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx",
        b"\0" * 200_000,
        b"HTTP/1.1 999999 \r\n\r\n",
    ],
)
def test_what_is_no_http_is_trouble(study: Study, said: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(said)

    with Raw(serve) as server:
        delivery = Delivery(sender(server.url), study.part(0, 3))
    assert "delivered" not in delivery.counts
    assert delivery.down


def test_an_endless_answer_is_cut(study: Study) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(bytes(65536))

    with Raw(serve) as server:
        delivery = Delivery(sender(server.url), study.part(0, 3))
    assert "too long" in delivery.down


def test_memory_does_not_grow_with_the_objects(tmp_path: Path) -> None:
    huge = make_huge(tmp_path / "huge" / "huge.dcm", "PAT-HUGE", 200_000_000)

    def serve(connection: socket.socket) -> None:
        got = 0
        while got < 199_000_000:
            got += len(connection.recv(1 << 20))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        while connection.recv(1 << 20):
            pass

    tracemalloc.start()
    try:
        with Raw(serve) as server:
            delivery = Delivery(sender(server.url, deadlines=StowDeadlines()), huge.files.values())
        assert delivery.counts == {"delivered": 1}
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
