"""The gate: who may come in, what they may send, and how long they may take."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from actors.api.problems import ProblemError
from actors.api.security import MAX_BODY_BYTES, Gate, host_allowed
from protocol.config import Settings, load
from protocol.logs import Repeats
from tests.actors.api.surroundings import Surroundings
from tests.actors.launcher import wait_until

LOOPBACK = ("127.0.0.1", 5)
BEYOND = ("10.1.2.3", 5)
JSON = {"content-type": "application/json"}


def settings_of(tmp_path: Path, *sets: str) -> Settings:
    """Effective settings without any file."""
    config = tmp_path / "appsettings.json"
    config.write_text("{}")
    return load(config, None, list(sets), {}).settings


def gate_of(settings: Settings) -> Gate:
    """A gate with nothing behind it."""

    async def nothing(*_: object) -> None: ...

    return Gate(nothing, lambda: settings, Repeats(lambda *_, **__: None))


def status(gate: Gate, client: tuple[str, int] | None, method: str = "GET", **headers: str) -> int:
    """The status that a request gets at the gate; 200 when it passes."""
    given = {"host": "pacs:5000"} | {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        gate.check(method, client, given)
    except ProblemError as error:
        return error.problem.status
    return 200


@pytest.mark.parametrize(
    ("client", "headers", "expected"),
    [
        (LOOPBACK, {}, 200),
        (("::1", 5), {}, 200),
        (("::ffff:127.0.0.1", 5), {}, 200),
        (BEYOND, {}, 401),
        (("::ffff:10.1.2.3", 5), {}, 401),
        (None, {}, 401),
        (("nonsense", 5), {}, 401),
        (LOOPBACK, {"x_forwarded_for": "10.1.2.3"}, 401),
        (LOOPBACK, {"forwarded": "for=10.1.2.3"}, 401),
        (LOOPBACK, {"x_forwarded_proto": "https"}, 401),
        (LOOPBACK, {"x_forwarded_host": "gateway.example"}, 401),
        (LOOPBACK, {"via": "1.1 proxy"}, 401),
        (BEYOND, {"authorization": "Bearer secret"}, 200),
        (BEYOND, {"authorization": "bearer  secret "}, 200),
        (BEYOND, {"authorization": "Bearer Secret"}, 401),
        (BEYOND, {"authorization": "Bearer secre"}, 401),
        (BEYOND, {"authorization": "Bearer"}, 401),
        (BEYOND, {"authorization": "Bearer \xff"}, 401),
        (BEYOND, {"authorization": "Basic secret"}, 401),
        (LOOPBACK, {"authorization": "Bearer wrong"}, 200),
    ],
)
def test_token(tmp_path: Path, client: tuple[str, int] | None, headers: dict[str, str], expected: int) -> None:
    gate = gate_of(settings_of(tmp_path, "DicomAdapter.api.token=secret"))
    assert status(gate, client, **headers) == expected


def test_without_a_token_the_remedy_is_told(tmp_path: Path) -> None:
    gate = gate_of(settings_of(tmp_path))
    assert status(gate, LOOPBACK) == 200
    with pytest.raises(ProblemError, match=r"DicomAdapter\.api\.token") as raised:
        gate.check("GET", BEYOND, {"host": "x", "authorization": "Bearer "})
    assert raised.value.problem.status == 401
    assert raised.value.headers["WWW-Authenticate"] == "Bearer"


def test_anonymous(tmp_path: Path) -> None:
    assert status(gate_of(settings_of(tmp_path, "DicomAdapter.api.allowAnonymous=true")), BEYOND) == 200


def test_token_file_is_read_again(tmp_path: Path) -> None:
    """A new token needs no restart; without the file nobody gets in."""
    file = tmp_path / "token"
    gate = gate_of(settings_of(tmp_path, f"DicomAdapter.api.tokenFile={file}"))
    assert status(gate, BEYOND, authorization="Bearer ") == 401
    for token in ("first", "another"):
        file.write_text(f"{token}\n")
        assert status(gate, BEYOND, authorization=f"Bearer {token}") == 200
    assert status(gate, BEYOND, authorization="Bearer first") == 401
    file.unlink()
    assert status(gate, BEYOND, authorization="Bearer another") == 401


@pytest.mark.parametrize(
    ("header", "allowed", "expected"),
    [
        ("anything", ("*",), True),
        ("", ("*",), True),
        ("", ("pacs",), False),
        ("pacs", ("pacs",), True),
        ("PACS:5000", ("pacs",), True),
        ("pacs.evil", ("pacs",), False),
        ("a.pacs", ("*.pacs",), True),
        ("pacs", ("*.pacs",), False),
        (".pacs", ("*.pacs",), False),
        ("evilpacs", ("*.pacs",), False),
        ("[::1]:5000", ("[::1]",), True),
        ("[::1]", ("localhost", "[::1]"), True),
        ("10.0.0.1:80", ("10.0.0.1",), True),
    ],
)
def test_host(header: str, allowed: tuple[str, ...], expected: bool) -> None:
    assert host_allowed(header, allowed) is expected


@pytest.mark.parametrize(
    ("host", "origin", "allowed", "expected"),
    [
        ("localhost:5000", "http://localhost:5000", "*", 200),
        ("10.0.0.1:5000", "http://10.0.0.1:5000", "*", 200),
        ("localhost:5000", "http://evil", "*", 403),
        ("localhost:5000", "null", "*", 403),
        ("evil:5000", "http://evil:5000", "*", 403),
        ("pacs:5000", "http://pacs:5000", "pacs", 200),
    ],
)
def test_pages_of_other_sites(tmp_path: Path, host: str, origin: str, allowed: str, expected: int) -> None:
    """Also one whose name was made to point to this machine, since commands are configured here without a token."""
    gate = gate_of(settings_of(tmp_path, f"AllowedHosts={allowed}"))
    assert status(gate, LOOPBACK, "POST", host=host, origin=origin) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"content_length": "5", "content_type": "application/json"}, 200),
        ({"content_length": "5", "content_type": "Application/JSON; charset=UTF-8"}, 200),
        ({"content_length": "5", "content_type": "application/dicom+json"}, 200),
        ({"content_length": "5", "content_type": "application/json; charset=utf-16"}, 415),
        ({"content_length": "5", "content_type": "text/plain"}, 415),
        ({"content_length": "5", "content_type": "application/x-www-form-urlencoded"}, 415),
        ({"content_length": "5"}, 415),
        ({"transfer_encoding": "chunked"}, 415),
        ({"content_length": "0"}, 200),
        ({}, 200),
        ({"content_length": str(MAX_BODY_BYTES), "content_type": "application/json"}, 200),
        ({"content_length": str(MAX_BODY_BYTES + 1), "content_type": "application/json"}, 413),
        ({"content_length": "9" * 4000, "content_type": "application/json"}, 413),
        ({"content_length": "5", "content_type": "application/json", "content_encoding": "gzip"}, 415),
        ({"content_length": "5", "content_type": "application/json", "content_encoding": "identity"}, 200),
    ],
)
def test_body_headers(tmp_path: Path, headers: dict[str, str], expected: int) -> None:
    gate = gate_of(settings_of(tmp_path))
    assert status(gate, LOOPBACK, "POST", **headers) == expected
    assert status(gate, LOOPBACK, "GET", **headers) == 200


# Over real HTTP.


def test_large_body_is_refused_while_it_comes(running: Surroundings) -> None:
    """A gigabyte in chunks, of no announced length: 413 after the first megabyte, and the memory is not taken."""

    def chunks() -> Iterator[bytes]:
        yield b'{"aeTitle": "'
        for _ in range(16 * 1024):
            yield b"A" * 65536

    before = peak_kilobytes(running.api.pid)
    answer = post_until_refused(running, chunks())
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert b"application/problem+json" in answer
    assert peak_kilobytes(running.api.pid) - before < 16 * 1024
    assert running.rest.get("/api/config/sourceaetitle").json() == []


def post_until_refused(running: Surroundings, chunks: Iterator[bytes]) -> bytes:
    """Send a chunked POST; returns what came back when the other side stopped taking it, or all was sent."""
    head = (
        b"POST /api/config/sourceaetitle HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", running.port), timeout=30.0) as connection:
        connection.sendall(head)
        sent = 0
        try:
            for chunk in chunks:
                connection.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                sent += len(chunk)
                connection.setblocking(False)
                try:
                    answer = connection.recv(65536)
                except BlockingIOError:
                    continue
                finally:
                    connection.settimeout(30.0)
                assert sent < 64 * MAX_BODY_BYTES
                return answer
        except (BrokenPipeError, ConnectionResetError):
            return connection.recv(65536)
    raise AssertionError("all of it was taken")


def peak_kilobytes(pid: int) -> int:
    """The most memory that a process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise AssertionError("no VmHWM")


def test_refusals_over_http(rest: httpx.Client) -> None:
    """They are problem details, and the connection serves what follows."""
    for headers, expected in (({"content-type": "text/plain"}, 415), (JSON | {"content-encoding": "gzip"}, 415)):
        answer = rest.post("/api/config/sourceaetitle", content=b"{}", headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (expected, "application/problem+json")
    assert rest.get("/api/config/sourceaetitle", headers={"x-forwarded-for": "10.1.1.1"}).status_code == 401
    for path in ("/api/jobs/a%00b", "/api/jobs?aeTitle=%00"):
        assert rest.get(path).status_code == 400
    assert rest.get("/nothing/here").headers["content-type"] == "application/problem+json"
    answer = rest.patch("/api/jobs")
    assert (answer.status_code, "GET" in answer.headers["allow"]) == (405, True)


def test_garbage_on_the_port(running: Surroundings) -> None:
    """What is no HTTP is answered or closed, and others are served on."""
    for garbage in (b"\x16\x03\x01\x02\0", b"GET / HTTP/9.9\r\n\r\n", b"A" * 100_000 + b"\r\n\r\n", b"\0" * 1000):
        with socket.create_connection(("127.0.0.1", running.port), timeout=30.0) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    assert running.rest.get("/api/config/sourceaetitle").status_code == 200
    running.api.wait_for_log("request_refused peer=127.0.0.1")


def test_settings_apply_without_a_restart(tmp_path: Path) -> None:
    """Host and token, as the settings file says them now; neither the token nor a query is logged."""
    with Surroundings(tmp_path, "AllowedHosts=127.0.0.1", "Logging.LogLevel.Default=Debug", owners=False) as running:
        rest, proxied = running.rest, {"x-forwarded-for": "10.1.1.1"}
        refused = rest.get("/api/jobs", headers={"host": "pacs"})
        assert (refused.status_code, "AllowedHosts" in refused.json()["detail"]) == (400, True)
        assert rest.get("/api/jobs", headers=proxied).status_code == 401
        sets = ("AllowedHosts=pacs", "DicomAdapter.api.token=secret-token", "Logging.LogLevel.Default=Debug")
        running.launcher.change_settings(*sets)
        allowed = {"host": "pacs", "authorization": "Bearer secret-token"}
        wait_until(
            lambda: rest.get("/api/jobs?aeTitle=Q", headers=proxied | allowed).status_code == 200, "new settings"
        )
        assert rest.get("/api/jobs").status_code == 400
        line = running.api.wait_for_log("request method=GET path=/api/jobs status=200")
        assert "Q" not in line.partition("path")[2]
        assert "secret-token" not in running.api.log_text()


def test_problem_decodes() -> None:
    """Empty parts are left out."""
    problem = ProblemError(404, "no").problem
    assert msgspec.json.decode(msgspec.json.encode(problem)) == {"title": "Not Found", "status": 404, "detail": "no"}
