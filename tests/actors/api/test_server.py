"""What a peer may cost that sends too slowly, in this process and with short deadlines."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from litestar.types import ASGIApp, Receive, Scope, Send

from actors.api import security, server
from actors.api.problems import ProblemError
from actors.api.server import Server
from protocol.logs import Repeats


async def echo_length(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the length of the body."""
    bounded = security._bounded(receive, asyncio.get_running_loop().time() + security.BODY_SECONDS)
    length, more, status = 0, True, 200
    try:
        while more:
            message = await bounded()
            assert message["type"] == "http.request"
            length, more = length + len(message["body"]), message["more_body"]
    except ProblemError as error:
        status = error.problem.status
    body = str(length).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


@contextlib.asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[int]:
    """A server in this loop; its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    running = Server(app, [listener], Repeats(lambda *_, **__: None))
    task = asyncio.ensure_future(running.run_until_told())
    try:
        yield port
    finally:
        running.should_exit = True
        await asyncio.wait_for(task, 10.0)


async def talk(port: int, data: bytes) -> bytes:
    """Send, and read until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 10.0)
    finally:
        writer.close()


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\nHo", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP"])
def test_half_a_head_is_closed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Be it the first request of a connection, or one after it."""
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.2)

    async def run() -> None:
        async with serving(echo_length) as port:
            answer = await talk(port, data)
            assert answer.count(b"HTTP/1.1 200") == data.count(b"\r\n\r\n")

    asyncio.run(run())


def test_half_a_body_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.5)

    async def run() -> None:
        async with serving(echo_length) as port:
            answer = await talk(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
            assert b" 408 " in answer.split(b"\r\n")[0]

    asyncio.run(run())


def test_a_slow_answer_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline is for what the peer sends, not for what it waits for."""
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.1)

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.5)
        await echo_length(scope, receive, send)

    async def run() -> None:
        async with serving(slow) as port:
            assert b" 200 " in (await talk(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")).split(b"\r\n")[0]

    asyncio.run(run())


def test_a_drain_lets_the_request_in_that_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that was taken just before gets its answer; one that stays silent is closed."""
    monkeypatch.setattr(server, "_LAST_CHANCE_SECONDS", 0.5)

    async def run() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        running = Server(echo_length, [listener], Repeats(lambda *_, **__: None))
        task = asyncio.ensure_future(running.run_until_told())
        pairs = [await asyncio.open_connection(*listener.getsockname()) for _ in range(2)]
        while len(running.server_state.connections) < 2:
            await asyncio.sleep(0)
        for connection in running.server_state.connections:
            connection.shutdown()
        running.should_exit = True
        pairs[0][1].write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answers = [await asyncio.wait_for(reader.read(), 10.0) for reader, _ in pairs]
        assert answers[0].startswith(b"HTTP/1.1 200")
        assert answers[1] == b""
        await asyncio.wait_for(task, 10.0)
        for _, writer in pairs:
            writer.close()

    asyncio.run(run())
