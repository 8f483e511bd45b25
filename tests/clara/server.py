"""The server of the platform for tests, behind a relay whose connections can be cut."""

import contextlib
import selectors
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from protocol.platforms.clara.generated import jobs_pb2_grpc, payloads_pb2_grpc, pipelines_pb2_grpc
from tests.clara.faults import Faults
from tests.clara.services import Jobs, Payloads, Pipelines
from tests.clara.store import Store

_THREADS = 64


class Relay:
    """Passes bytes between its own port and another, until it is told to cut everything.

    Args:
        port: to listen on; 0 for any.
    """

    def __init__(self, port: int = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.target = 0
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """End all connections, as a lost network does."""
        with self._lock:
            for pair in self._pairs:
                for end in pair:
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Listen no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(near,), daemon=True).start()

    def _pass(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError), near, socket.create_connection(("127.0.0.1", self.target)) as far:
            pair = (near, far)
            with self._lock:
                self._pairs.add(pair)
            try:
                with selectors.DefaultSelector() as selector:
                    selector.register(near, selectors.EVENT_READ, far)
                    selector.register(far, selectors.EVENT_READ, near)
                    while True:
                        for key, _ in selector.select():
                            assert isinstance(key.fileobj, socket.socket)
                            data = key.fileobj.recv(1 << 16)
                            if not data:
                                return
                            key.data.sendall(data)
            finally:
                with self._lock:
                    self._pairs.discard(pair)


class ClaraServer:
    """A running platform.

    Args:
        root: where it keeps what it has; a later server may go on there.
        port: to listen on; 0 for any.
        finish: whether jobs end well as soon as they are started.
        credentials: for TLS.
    """

    def __init__(self, root: Path, port: int = 0, *, finish: bool = True, credentials: Any = None) -> None:
        self.store = Store(root)
        self.uploaded: list[tuple[str, str]] = []
        self._relay = Relay(port)
        self.faults = Faults(self._relay.cut)
        # Jobs that are left hanging hold a thread each.
        self._server = grpc.server(ThreadPoolExecutor(_THREADS), interceptors=(self.faults,))
        jobs_pb2_grpc.add_JobsServicer_to_server(Jobs(self.store, finish=finish), self._server)
        payloads_pb2_grpc.add_PayloadsServicer_to_server(Payloads(self.store, self.uploaded), self._server)
        pipelines_pb2_grpc.add_PipelinesServicer_to_server(Pipelines(self.store), self._server)
        address = "127.0.0.1:0"
        self._relay.target = (
            self._server.add_secure_port(address, credentials)
            if credentials
            else self._server.add_insecure_port(address)
        )
        self._server.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """Where it is reached."""
        return self._relay.port

    @property
    def endpoint(self) -> str:
        """As a setting."""
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """End all connections."""
        self._relay.cut()

    def close(self) -> None:
        """End."""
        self._relay.close()
        self.faults.end()
        self._server.stop(0).wait(10)
