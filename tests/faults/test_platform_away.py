"""The platform is away for an hour, compressed: jobs go on by themselves afterwards, and receiving never notices."""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from protocol.channels import PLATFORM_COMMANDS
from tests.faults.trial import Trial

_NEVER = threading.Event()


@contextmanager
def away(trial: Trial) -> Iterator[None]:
    """While the block lasts no platform actor can take its place: its endpoint is held by somebody else."""
    gateway = trial.gateway
    endpoint = PLATFORM_COMMANDS.endpoint_of("platform")
    lock = os.open(gateway.runtime / f"{endpoint}.lock", os.O_RDWR | os.O_CREAT, 0o600)

    def take() -> bool:
        for pid in trial.victims.pids("platform"):
            trial.victims.kill(pid)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    try:
        gateway.wait_for(take, 30.0, "free endpoint of the platform")
        yield
    finally:
        os.close(lock)


def unreachable(trial: Trial) -> int:
    """How many jobs have faulted since the platform is away."""
    with closing(sqlite3.connect(f"file:{trial.gateway.ledger}?mode=ro", uri=True, timeout=10.0)) as ledger:
        query = "SELECT count(*) FROM submission WHERE state = 'Faulted' AND unreachable"
        return int(ledger.execute(query).fetchone()[0])


def rate(trial: Trial, seconds: float) -> float:
    """Acknowledged objects in a second."""
    before = trial.acknowledged
    _NEVER.wait(seconds)
    return (trial.acknowledged - before) / seconds


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_an_hour_without_the_platform(tmp_path: Path) -> None:
    # One try of 15 s without an answer is enough to be faulted: as after four tries in an hour.
    settings = {"services.platform.maxRetries": 0, "services.platform.retryDelaySeconds": 1}
    with Trial(tmp_path, settings) as trial:
        trial.send(2, study_objects=40, association_objects=10, pause_seconds=0.2)
        gateway = trial.gateway
        gateway.wait_for(lambda: trial.acknowledged > 100, 60.0, "deliveries")
        at_home = rate(trial, 15.0)
        with away(trial):
            without = rate(trial, 45.0)
            gateway.wait_for(lambda: unreachable(trial) >= 10, 120.0, "ten jobs that faulted as unreachable")
            faulted = unreachable(trial)
        figures = trial.prove(240.0)
        assert unreachable(trial) == 0
    print(
        f"platform away: {faulted} jobs faulted meanwhile; {at_home:.0f} objects/s before, {without:.0f} without; "
        f"{figures}"
    )
    assert without > 0.8 * at_home
