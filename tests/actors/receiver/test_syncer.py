"""Syncs beside the loop: the kernel's asynchronous I/O, and threads."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from actors.actor import Actor
from actors.receiver.syncer import KernelSyncer, Syncer, ThreadSyncer
from tests.actors.receiver.loop import Loop


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture(params=[KernelSyncer, ThreadSyncer])
def syncer(request: pytest.FixtureRequest, loop: Loop) -> Iterator[Syncer]:
    made: Syncer = request.param(cast(Actor, loop))
    yield made
    made.close(5.0)


class TestSyncers:
    def test_each_sync_is_told_of_once(self, syncer: Syncer, loop: Loop, tmp_path: Path) -> None:
        """More than the kernel takes at a time."""
        told: list[object] = []
        fds = [os.open(tmp_path / str(number), os.O_CREAT | os.O_WRONLY) for number in range(300)]
        for fd in fds:
            os.write(fd, b"x" * 100)
            syncer.sync(fd, told.append, data_only=True)
        loop.until(lambda: len(told) == 300)
        assert set(told) == {None}
        for fd in fds:
            os.close(fd)

    def test_directories_too(self, syncer: Syncer, loop: Loop, tmp_path: Path) -> None:
        told: list[object] = []
        fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        syncer.sync(fd, told.append, data_only=False)
        loop.until(lambda: bool(told))
        assert told == [None]
        os.close(fd)

    def test_what_cannot_be_synced_is_an_error(self, syncer: Syncer, loop: Loop) -> None:
        told: list[OSError | None] = []
        reading, writing = os.pipe()
        syncer.sync(writing, told.append, data_only=True)
        loop.until(lambda: bool(told))
        assert told[0] is not None
        assert told[0].errno == errno.EINVAL
        os.close(reading)
        os.close(writing)

    def test_closing_waits_for_what_runs(self, syncer: Syncer, loop: Loop, tmp_path: Path) -> None:
        told: list[object] = []
        fd = os.open(tmp_path / "x", os.O_CREAT | os.O_WRONLY)
        syncer.sync(fd, told.append, data_only=True)
        syncer.close(10.0)
        assert told == [None]
        os.close(fd)
        syncer.close = lambda seconds: None  # type: ignore[method-assign] # it is closed
