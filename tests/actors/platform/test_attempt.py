"""A try and its shim, without an actor: time limits, stubborn commands, signals, what is told of the end."""

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.platform.accounts import account_of
from actors.platform.attempt import Attempt, Limits, Result, Shim, lost_tries
from actors.platform.inputs import Inputs
from actors.platform.launching import ForkServer
from tests.actors.launcher import wait_until

QUICK = Limits(run_seconds=0.3, grace_seconds=0.3, stop_seconds=0.3)
LONG = Limits(run_seconds=60, grace_seconds=0.3, stop_seconds=0.3)
STUBBORN = "trap '' TERM; touch begun; while :; do sleep 0.05; done"


class Running:
    """A try whose command was started."""

    def __init__(self, home: Path, script: str, limits: Limits) -> None:
        (home / "payload").mkdir(parents=True)
        (home / "payload" / "file").write_bytes(b"x")
        self.attempt = Attempt(home, 1)
        self.alive, self._alive_writing = os.pipe2(os.O_CLOEXEC)
        account = account_of("")
        self.attempt.prepare(Inputs(), account)
        self.server = ForkServer(self.alive)
        shim = self.attempt.launch(["sh", "-c", script], "job", account, limits, self.server)
        assert shim is not None
        self.shim: Shim = shim

    def wait_begun(self) -> None:
        wait_until((self.attempt.output / "begun").exists, "the command")

    def end_supervisor(self) -> None:
        os.close(self._alive_writing)
        self._alive_writing = -1

    def wait_ended(self, seconds: float = 10.0) -> Result | None:
        assert select.select([self.shim.pidfd], [], [], seconds)[0], "the shim goes on"
        return self.attempt.result()

    def close(self) -> None:
        if not select.select([self.shim.pidfd], [], [], 0)[0]:
            signal.pidfd_send_signal(self.shim.pidfd, signal.SIGKILL)
        self.shim.close()
        self.server.close()
        self.attempt.end_what_is_left()
        for fd in (self.alive, self._alive_writing):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def begin(tmp_path: Path) -> Iterator["type[Running]"]:
    started: list[Running] = []

    class Begun(Running):
        def __init__(self, script: str, limits: Limits = LONG) -> None:
            super().__init__(tmp_path / "payload-1", script, limits)
            started.append(self)

    yield Begun
    for running in started:
        running.close()


def test_a_command_that_ignores_sigterm_is_killed_after_the_grace(begin: "type[Running]") -> None:
    running = begin(STUBBORN, QUICK)
    result = running.wait_ended()
    assert result is not None
    assert (result.outcome, result.reason, result.exit_code) == ("timed_out", "time limit of 0.3 s", None)
    assert result.signal == signal.SIGKILL
    assert 0.5 < (result.ended_ns - result.started_ns) / 1e9 < 5


def test_a_command_that_ends_well_at_its_limit_has_still_exceeded_it(begin: "type[Running]") -> None:
    """Exit code 0 after SIGTERM says that it tidied up, not that it did its work."""
    running = begin("trap 'exit 0' TERM; while :; do sleep 0.05; done", QUICK)
    result = running.wait_ended()
    assert result is not None
    assert (result.outcome, result.exit_code) == ("timed_out", 0)


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (lambda running: running.shim.stop(), "stopped"),
        (lambda running: running.shim.cancel(), "canceled"),
        (lambda running: running.end_supervisor(), "stopped"),
    ],
)
def test_a_run_is_ended_from_outside(begin: "type[Running]", end: object, outcome: str) -> None:
    running = begin(STUBBORN)
    running.wait_begun()
    assert callable(end)
    end(running)
    result = running.wait_ended(5)
    assert result is not None
    assert result.outcome == outcome


def test_what_was_decided_first_stays(begin: "type[Running]") -> None:
    """A run that is canceled while the gateway stops does not come back."""
    running = begin(STUBBORN)
    running.wait_begun()
    running.shim.cancel()
    running.shim.stop()
    result = running.wait_ended(5)
    assert result is not None
    assert result.outcome == "canceled"


def test_processes_left_behind_are_counted(begin: "type[Running]") -> None:
    running = begin("sleep 600 & setsid sleep 600 & exit 0")
    result = running.wait_ended()
    assert result is not None
    assert (result.outcome, result.exit_code, result.left_behind) == ("exited", 0, 2)


def test_a_living_shim_is_found_by_its_lock(begin: "type[Running]") -> None:
    running = begin(STUBBORN)
    running.wait_begun()
    other = Attempt(running.attempt.home, 1)
    assert other.is_running()
    shim = other.attach()
    assert shim is not None
    shim.stop()
    assert running.wait_ended() is not None
    shim.close()
    assert not other.is_running()
    assert other.attach() is None


def test_a_shim_killed_without_a_result_counts_as_lost(begin: "type[Running]") -> None:
    """What it had started is ended, its files are removed, and the lock file stays as the record of it."""
    running = begin("sleep 600 & " + STUBBORN)
    running.wait_begun()
    signal.pidfd_send_signal(running.shim.pidfd, signal.SIGKILL)
    assert running.wait_ended() is None
    running.attempt.end_what_is_left()
    running.attempt.give_up()
    assert lost_tries(running.attempt.home) == 1
    assert sorted(os.listdir(running.attempt.directory)) == ["output.log", "shim.lock"]


@pytest.mark.alone
def test_the_command_starts_soon(begin: "type[Running]") -> None:
    """From launch to the command's first breath: the budget is 150 ms, here with room for a busy machine."""
    begun = time.time_ns()
    running = begin(f"exec {sys.executable} -I -S -c 'import time; print(time.time_ns())'")
    assert running.wait_ended() is not None
    assert (int(running.attempt.shown_output()) - begun) / 1e9 < 1.0


def test_shown_output_is_the_end_as_text(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, 1)
    assert attempt.shown_output() == ""
    attempt.directory.mkdir(parents=True)
    attempt.log.write_bytes(b"a" * 10_000 + b"\xff\0end")
    shown = attempt.shown_output()
    assert shown.endswith("a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}end")
    assert len(shown) == 4096
