"""What systemd hears, on a real notification socket."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.systemd import Notifier, listen_descriptors


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield channel


def test_a_status_is_told_when_it_changes(manager: socket.socket) -> None:
    notifier = Notifier()
    for sentence in ("9 of 9 actors running", "9 of 9 actors running", "8 of 9 actors running; api backoff"):
        notifier.status(sentence)
    notifier.ready()
    heard = [manager.recv(4096).decode() for _ in range(3)]
    assert heard == ["STATUS=9 of 9 actors running", "STATUS=8 of 9 actors running; api backoff", "READY=1"]


def test_the_watchdog_beats_twice_in_its_interval(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    notifier = Notifier()
    notifier.ready()
    assert manager.recv(4096) == b"READY=1"
    clock = time.monotonic()
    following = notifier.beat(clock + 0.1)
    assert manager.recv(4096) == b"WATCHDOG=1"
    assert following == pytest.approx(clock + 1.6)
    manager.setblocking(False)
    assert notifier.beat(clock + 0.2) == following
    with pytest.raises(BlockingIOError):
        manager.recv(4096)


def test_a_start_may_last_while_the_loop_turns_and_a_stop_as_long_as_is_configured(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    notifier = Notifier()
    notifier.beat(time.monotonic() + 0.1)
    assert manager.recv(4096) == b"WATCHDOG=1\nEXTEND_TIMEOUT_USEC=120000000"
    notifier.stopping(3600)
    assert manager.recv(4096) == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=3610000000"


def test_a_reload_is_told_once_it_can_be_one(manager: socket.socket) -> None:
    notifier = Notifier()
    notifier.reloading()
    notifier.reloaded()
    notifier.ready()
    notifier.reloading()
    notifier.reloaded()
    heard = [manager.recv(4096).decode().partition("\n")[0] for _ in range(3)]
    assert heard == ["READY=1", "RELOADING=1", "READY=1"]


def test_another_process_watchdog_is_not_ours(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert Notifier().beat(time.monotonic()) == float("inf")


def test_children_do_not_inherit_what_is_meant_for_the_supervisor(manager: socket.socket) -> None:
    Notifier()
    assert "NOTIFY_SOCKET" not in os.environ


def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().ready()


def test_descriptors_meant_for_another_process_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert listen_descriptors() == []
