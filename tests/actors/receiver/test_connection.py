"""A peer's socket: how much of what it sends is on its way, and when that is acknowledged, on real TCP connections."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors.actor import Timer
from actors.receiver import connection as connection_module
from actors.receiver.connection import Connection
from tests.actors.launcher import wait_until

_AT_ONCE = 32
_UNACKNOWLEDGED = struct.Struct("=24xI")  # tcpi_unacked of struct tcp_info
_DEFAULT = int(Path("/proc/sys/net/ipv4/tcp_rmem").read_text().split()[1])


class _Loop:
    """What a connection needs of an actor; the test turns it."""

    def __init__(self) -> None:
        self.ready: Callable[[int], None] | None = None

    def watch(self, fd: int, callback: Callable[[int], None]) -> None:
        assert fd >= 0
        self.ready = callback

    def unwatch(self, fd: int) -> None:
        assert fd >= 0

    def at(self, clock: float, callback: Callable[[], None]) -> Timer:
        return Timer(clock, callback)


class _Amid:
    """An owner that always waits for more."""

    def __init__(self) -> None:
        self.connection: Connection | None = None

    def received(self, data: memoryview) -> None:
        assert len(data)
        assert self.connection
        self.connection.acknowledge()


class _Way:
    """Both ends of a connection.

    Attributes:
        peer: the sender's socket.
        ours: the accepted one.
    """

    def __init__(self, *, synced: bool = False) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.peer = socket.create_connection(listener.getsockname())
            self.ours, _ = listener.accept()
        self.peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop, owner = _Loop(), _Amid()
        buffer = memoryview(bytearray(65536))
        self._connection = Connection(self._loop, self.ours, buffer, owner, 60.0, synced=synced)  # type: ignore[arg-type]
        owner.connection = self._connection

    def close(self) -> None:
        self._connection.close()
        self.peer.close()

    def send(self) -> None:
        """An answer, on which the system leaves its own acknowledgements; then a few bytes, which are received."""
        self._connection.send(b"answer", 60.0)
        assert self.peer.recv(6) == b"answer"
        self.peer.send(b"bytes")
        assert self._loop.ready
        self._loop.ready(connection_module._EPOLLIN)

    def acknowledged_at_once(self, messages: int) -> int:
        """Of so many messages; a busy machine may be late with a few, and the system alone would be with all."""
        count = 0
        for _ in range(messages):
            self.send()
            count += self.acknowledged
        return count

    @property
    def acknowledged(self) -> bool:
        """Whether the peer knows that all has come."""
        told = self.peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKNOWLEDGED.size)
        return _UNACKNOWLEDGED.unpack(told) == (0,)


@pytest.fixture
def way() -> Iterator[_Way]:
    made = _Way()
    yield made
    made.close()


def test_a_near_peer_has_little_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "_NEAR_SECONDS", 60.0)  # a busy machine may need long for a first packet
    near = _Way()
    assert near.ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * 64 * 1024
    near.close()


def test_a_near_peer_whose_objects_are_synced_has_one_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "_NEAR_SECONDS", 60.0)
    near = _Way(synced=True)
    allowed = int(Path("/proc/sys/net/core/rmem_max").read_text())
    assert near.ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * min(512 * 1024, allowed)
    near.close()


def test_a_far_peer_has_what_the_system_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "_NEAR_SECONDS", -1.0)
    far = _Way()
    assert far.ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= _DEFAULT
    assert connection_module._round_trip_seconds(far.ours) > 0
    far.close()


def test_what_comes_first_is_acknowledged_at_once(way: _Way) -> None:
    assert way.acknowledged_at_once(_AT_ONCE) > _AT_ONCE // 2


def test_a_peer_that_waits_for_acknowledgements_gets_them_at_once_from_then_on(way: _Way) -> None:
    for _ in range(2 * _AT_ONCE):
        way.send()
    delayed = 0
    while way.acknowledged and delayed < 1000:  # until the system delays one
        way.send()
        delayed += 1
    assert not way.acknowledged
    wait_until(lambda: way.acknowledged, "the system's own acknowledgement")
    time.sleep(0.03)  # the pause is what the next receive sees; a longer one means the same
    way.send()
    assert way.acknowledged_at_once(3 * _AT_ONCE) > 2 * _AT_ONCE
