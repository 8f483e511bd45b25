"""uvicorn inside the actor's own event loop: it takes no signals, and no connection stays that sends nothing whole."""

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from litestar.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from protocol.logs import Repeats

HEADER_SECONDS = 15.0
_LAST_CHANCE_SECONDS = 1.0
_TICK_SECONDS = 0.25
_LINE_BYTES = 64 * 1024


class _Connection(H11Protocol):
    """Closes a connection that has not sent a whole request head in time, be it its first or a later one."""

    def __init__(self, refused: Repeats, **inherited: Any) -> None:
        super().__init__(**inherited)
        self._refused = refused
        self._late: asyncio.TimerHandle | None = None
        self._leaving = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self._expect_request(HEADER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._leaving:
            self.transport.close()
        else:
            self._expect_request(HEADER_SECONDS)

    def shutdown(self) -> None:
        """Close at a drain, but let the request come that a connection was opened for just now."""
        self._leaving = True
        if self.cycle is None:
            self._expect_request(_LAST_CHANCE_SECONDS)
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        self._refused.add("request_refused", self.client[0] if self.client else "unknown", reason="this is no HTTP")
        super().send_400_response(msg)

    def _expect_request(self, seconds: float) -> None:
        if self._late is not None:
            self._late.cancel()
        self._late = self.loop.call_later(seconds, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


class Server(uvicorn.Server):
    """Serves an application on sockets that listen already.

    Args:
        app: what is served.
        sockets: they are closed when it ends, and stay open for those who share them.
        refused: writes that a peer was refused.
    """

    def __init__(self, app: ASGIApp, sockets: list[socket.socket], refused: Repeats) -> None:
        options: dict[str, Any] = {
            "http": functools.partial(_Connection, refused),
            "ws": "none",
            "lifespan": "off",
            "loop": "none",
            "log_config": None,
            "access_log": False,
            # A proxy is told by its headers, see `security`.
            "proxy_headers": False,
            "server_header": False,
            "h11_max_incomplete_event_size": _LINE_BYTES,
        }
        super().__init__(uvicorn.Config(app, **options))
        # Its words about each peer and about itself are ours to say; a filter outlives changed levels.
        logging.getLogger("uvicorn.error").addFilter(_is_error)
        self._sockets = sockets

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the actor."""
        yield

    async def main_loop(self) -> None:
        """Look less often than uvicorn does whether this is the end: most of an idle API's time went into that."""
        while not await self.on_tick(0):
            await asyncio.sleep(_TICK_SECONDS)

    async def run_until_told(self) -> None:
        """Serve until `should_exit`, and then until the requests under way are answered."""
        await self.serve(self._sockets)
