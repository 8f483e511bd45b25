"""Actors of a supervisor that was killed: found by the lock that they hold."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from supervisor.orphans import are_orphans_left, open_lock


def test_there_are_none_without_a_runtime_directory(tmp_path: Path) -> None:
    assert not are_orphans_left(tmp_path / "missing")
    assert not are_orphans_left(tmp_path)


def test_they_are_found_for_as_long_as_one_lives(tmp_path: Path) -> None:
    lock = open_lock(tmp_path)
    fcntl.flock(lock, fcntl.LOCK_EX)
    actor = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
    os.close(lock)  # as the supervisor's is when it is killed
    try:
        assert are_orphans_left(tmp_path)
    finally:
        actor.kill()
        actor.communicate()
    assert not are_orphans_left(tmp_path)
