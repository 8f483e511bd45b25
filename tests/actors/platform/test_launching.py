"""The fork server: what is known after it died, and what cannot be known."""

import fcntl
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.platform.accounts import account_of
from actors.platform.attempt import Attempt, Limits
from actors.platform.inputs import Inputs
from actors.platform.launching import ForkServer, NoAnswerError
from tests.actors.launcher import wait_until

LIMITS = Limits(run_seconds=60, grace_seconds=0.3, stop_seconds=0.3)
COUNT = "echo x >> ../../../count; until [ -e ../../../go ]; do sleep 0.02; done"


class Forgetful(ForkServer):
    """Has the shim started, and then knows nothing of it; the server is killed."""

    times = 1

    def launch(self, *arguments: object) -> int:
        if not self.times:
            return super().launch(*arguments)  # type: ignore[arg-type]
        self.times -= 1
        os.close(super().launch(*arguments))  # type: ignore[arg-type]
        os.kill(self.pid, signal.SIGKILL)
        raise NoAnswerError


class Deaf(ForkServer):
    """Is killed before it hears of anything."""

    def __init__(self, alive: int, times: int) -> None:
        super().__init__(alive)
        self.times = times

    def launch(self, *arguments: object) -> int:
        if not self.times:
            return super().launch(*arguments)  # type: ignore[arg-type]
        self.times -= 1
        raise NoAnswerError


@pytest.fixture
def alive() -> Iterator[int]:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    yield reading
    os.close(writing)
    os.close(reading)


def prepared(home: Path) -> Attempt:
    (home / "payload").mkdir(parents=True)
    attempt = Attempt(home, 1)
    attempt.prepare(Inputs(), account_of(""))
    return attempt


def test_a_shim_that_was_started_unheard_is_attached_to(tmp_path: Path, alive: int) -> None:
    """It is not started twice."""
    attempt = prepared(tmp_path / "home")
    with Forgetful(alive) as server:
        assert attempt.launch(["sh", "-c", COUNT], "job", account_of(""), LIMITS, server) is None
    wait_until((tmp_path / "home" / "count").exists, "the command")
    shim = attempt.attach()
    assert shim is not None
    (tmp_path / "home" / "go").touch()
    assert select.select([shim.pidfd], [], [], 10)[0]
    shim.close()
    result = attempt.result()
    assert result is not None
    assert result.exit_code == 0
    assert (tmp_path / "home" / "count").read_text() == "x\n"


def test_what_was_surely_not_started_is_started_by_the_next_server(tmp_path: Path, alive: int) -> None:
    attempt = prepared(tmp_path / "home")
    with Deaf(alive, 1) as server:
        shim = attempt.launch(["true"], "job", account_of(""), LIMITS, server)
        assert shim is not None
        assert select.select([shim.pidfd], [], [], 10)[0]
        shim.close()
    assert attempt.result() is not None


def test_when_no_server_answers_nothing_was_lost(tmp_path: Path, alive: int) -> None:
    attempt = prepared(tmp_path / "home")
    with Deaf(alive, 2) as server, pytest.raises(BlockingIOError):
        attempt.launch(["true"], "job", account_of(""), LIMITS, server)
    assert not attempt.was_lost()


def test_a_server_that_was_killed_is_replaced(tmp_path: Path, alive: int) -> None:
    with ForkServer(alive) as server:
        server.start()
        first = server.pid
        os.kill(first, signal.SIGKILL)
        attempt = prepared(tmp_path / "home")
        shim = attempt.launch(["true"], "job", account_of(""), LIMITS, server)
        assert shim is not None
        assert server.pid != first
        assert select.select([shim.pidfd], [], [], 10)[0]
        shim.close()


def test_only_the_shim_holds_the_lock(tmp_path: Path, alive: int) -> None:
    """The server has it for a moment only, and shims of other runs never."""
    with ForkServer(alive) as server:
        first, second = prepared(tmp_path / "first"), prepared(tmp_path / "second")
        long = first.launch(["sleep", "60"], "job", account_of(""), LIMITS, server)
        short = second.launch(["true"], "job", account_of(""), LIMITS, server)
        assert long is not None
        assert short is not None
        assert select.select([short.pidfd], [], [], 10)[0]
        assert not second.is_running()
        assert first.is_running()
        long.cancel()
        assert select.select([long.pidfd], [], [], 10)[0]
        assert not first.is_running()
        for shim in (long, short):
            shim.close()


def test_arguments_and_environment_are_any_bytes(tmp_path: Path, alive: int) -> None:
    """Also more than a socket takes at once."""
    attempt = prepared(tmp_path / "home")
    odd = os.fsdecode(b"\xff\xfe")
    words = ["x" * 100_000] * 10
    with ForkServer(alive) as server:
        script = 'printf %s "$1" > "$2"; printf "%s %s" $# "$JOB_ID" > count'
        command = ["sh", "-c", script, "sh", odd, "{output}/odd", *words]
        shim = attempt.launch(command, "job-ü", account_of(""), LIMITS, server)
        assert shim is not None
        assert select.select([shim.pidfd], [], [], 10)[0]
        shim.close()
    assert (attempt.output / "odd").read_bytes() == b"\xff\xfe"
    assert (attempt.output / "count").read_text() == "12 job-ü"


def test_without_a_descriptor_to_spare_nothing_is_started(tmp_path: Path, alive: int) -> None:
    attempt = prepared(tmp_path / "home")
    with ForkServer(alive) as server:
        lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="Bad file descriptor"):
            server.launch([], {}, -1)
        os.close(lock)
        assert server.pid == 0
    assert not attempt.was_lost()


def test_it_is_no_actor_and_knows_none_of_this_processs_environment(
    alive: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DICOM_ADAPTER_RUNTIME", "/run/somewhere")
    with ForkServer(alive) as server:
        server.start()
        environment = Path(f"/proc/{server.pid}/environ").read_bytes()
    assert b"DICOM_ADAPTER" not in environment
