"""The actor: the base's main loop inside asyncio's, so that a web server that is stuck stops the heartbeats."""

import asyncio
import functools
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import peewee as pw

from actors.actor import Actor
from actors.api.app import application
from actors.api.book import Book
from actors.api.gateway import Gateway
from actors.api.server import Server
from protocol.birth import Birth
from protocol.config import Settings
from protocol.errors import AdapterError, CannotCreateError, ConfigurationError
from protocol.logs import Repeats
from protocol.spool import Spool

_THREADS = 16
_REPAIR_SECONDS = 2.0
_FORGET_SECONDS = 3600.0
_FLUSH_SECONDS = 5.0
_LEDGER_SECONDS = 2.0


class Api(Actor):
    """REST, health, metrics; owner of AE titles, sources, destinations and pipelines."""

    kind: ClassVar[str] = "api"

    def __init__(self, birth: Birth, settings: Settings) -> None:
        super().__init__(birth, settings)
        self._spool = Spool(settings.storage.temporary)
        self._book = Book(settings.database)
        self._gateway = Gateway(
            runtime=birth.runtime,
            settings=lambda: self.settings,
            book=self._book,
            bus=self.bus,
            board=self.board,
            spool=self._spool,
        )
        self._refused = Repeats(self.log.info)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="request")
        self._server: Server | None = None
        self._ended: asyncio.Future[None] | None = None
        self._next_turn: asyncio.TimerHandle | None = None

    def run(self) -> None:
        """Live in asyncio's loop until finished."""
        try:
            asyncio.run(self._live())
        finally:
            self.stop()
            self.bus.close()

    def start(self) -> None:
        """Make the application, and open the ledger beside it; without the ledger health is still answered."""
        self._spool.create()
        open_ledger = functools.partial(self._book.open, self._ledger_open, self._fail)
        threading.Thread(target=self._guarded, args=(open_ledger,), daemon=True).start()
        self._server = Server(application(self._gateway, self._refused), self._listeners(), self._refused)
        self._book.wait_first_try(_LEDGER_SECONDS)
        self.every(_REPAIR_SECONDS, self._repair_access)
        self.every(_FLUSH_SECONDS, self._refused.flush)
        self.every(_FORGET_SECONDS, lambda: self._in_background(self._forget_deleted))

    def drain(self) -> None:
        """Answer the requests under way; the listening socket goes on in the successor."""
        if self._server is not None:
            self._server.should_exit = True

    def finish(self) -> None:
        """End the loop of asyncio too."""
        super().finish()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def stop(self) -> None:
        """Wait for the threads, since the bus must not be closed under them; each of their waits is bounded."""
        self._refused.flush(everything=True)
        self._book.close()
        self._gateway.watchers.shutdown(cancel_futures=True)
        self._threads.shutdown(cancel_futures=True)

    def busy_with(self) -> str:
        """How many requests are under way."""
        return f"{len(self._server.server_state.tasks)} requests" if self._server is not None else ""

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(self._threads)
        self._ended = loop.create_future()
        self.open()
        assert self._server is not None
        serving = asyncio.ensure_future(self._server.run_until_told())
        serving.add_done_callback(self._served)
        loop.add_reader(self.loop_fd, self._turn)
        self._turn()
        try:
            await self._ended
        finally:
            loop.remove_reader(self.loop_fd)
            if self._next_turn is not None:
                self._next_turn.cancel()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    def _turn(self) -> None:
        """One turn of the actor's loop; what it raises ends the process, as it would in the actor's own."""
        assert self._ended is not None
        try:
            self.turn(0.0)
        except BaseException as error:
            if not self._ended.done():
                self._ended.set_exception(error)
            return
        if self._next_turn is not None:
            self._next_turn.cancel()
        self._next_turn = asyncio.get_running_loop().call_later(self.seconds_to_next_timer(), self._turn)

    def _served(self, serving: "asyncio.Future[None]") -> None:
        """The server has ended: as it was told, or by a fault."""
        assert self._ended is not None
        error = None if serving.cancelled() else serving.exception()
        if error is not None and not self._ended.done():
            self._ended.set_exception(error)
        else:
            self.finish()

    def _listeners(self) -> list[socket.socket]:
        """The supervisor's sockets; without them (a test, a developer) one of our own.

        Raises:
            CannotCreateError: the port is taken.
        """
        if self.birth.listeners:
            return [_without_delay(socket.socket(fileno=fd)) for fd in self.birth.listeners]
        api = self.settings.api
        family = socket.AF_INET6 if ":" in api.bind else socket.AF_INET
        try:
            return [_without_delay(socket.create_server((api.bind, api.port), family=family, backlog=128))]
        except OSError as error:
            raise CannotCreateError(
                f"the REST API cannot listen on {api.bind} port {api.port} ({error.strerror}): end what has the port, "
                "or set DicomAdapter.api.port to another one"
            ) from error

    # The ledger, and what is made of it.

    def _ledger_open(self) -> None:
        """In the opening thread: bring the access file up to what the ledger says."""
        self._write_access()
        self._forget_deleted()

    def _fail(self, error: ConfigurationError) -> None:
        """From the opening thread: end the process with the error's exit code."""

        def fail() -> None:
            raise error

        self.post(fail)

    def _repair_access(self) -> None:
        if self._gateway.access.is_due and self._book.is_open:
            self._in_background(self._write_access)

    def _in_background(self, work: Callable[[], None]) -> None:
        self._threads.submit(self._guarded, work)

    def _guarded(self, work: Callable[[], None]) -> None:
        """What a thread raises would otherwise be seen by nobody."""
        try:
            work()
        except Exception:
            self.log.unexpected("background_failed")

    def _write_access(self) -> None:
        try:
            self._gateway.access.write()
        except (AdapterError, pw.PeeweeException) as error:
            self.log.error("access_not_written", reason=str(error))

    def _forget_deleted(self) -> None:
        try:
            forgotten = self._gateway.ae_titles.forget_deleted()
        except (AdapterError, pw.PeeweeException) as error:
            self.log.warning("deleted_not_forgotten", reason=str(error))
            return
        if forgotten:
            self.log.info("deleted_forgotten", ae_titles=forgotten)


def _without_delay(listener: socket.socket) -> socket.socket:
    """Connections inherit it: head and body of an answer go out at once, not 40 ms apart."""
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
