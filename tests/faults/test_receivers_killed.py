"""Receivers are killed under load: nobody is refused or rejected, and only whom a killed process served notices."""

import random
import threading
from pathlib import Path

import pytest

from tests.faults.trial import Trial, seed_of_environment

SENDERS = 8


def served_by(pid: int, port: int) -> set[int]:
    """Remote ports of the connections on a port that a process holds (proc(5), /proc/net/tcp)."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote, inode = fields[1], fields[2], fields[9]
        if int(local.partition(":")[2], 16) == port and inode in inodes:
            found.add(int(remote.partition(":")[2], 16))
    return found


def run(directory: Path, kills: int) -> None:
    seed = seed_of_environment(4)
    chance = random.Random(seed)
    never = threading.Event()
    entitled: set[int] = set()
    with Trial(directory, seed=seed) as trial:
        trial.send(SENDERS, study_objects=60, association_objects=15, pause_seconds=0.1)
        gateway = trial.gateway
        for _ in range(kills):
            gateway.wait_for(lambda: len(trial.victims.pids("receiver")) == 2, 30.0, "two receivers")
            never.wait(chance.uniform(0.1, 0.8))
            pid = chance.choice(trial.victims.pids("receiver"))
            # Stopped first, so that what it serves does not change while it is looked at.
            if trial.victims.hang(pid):
                entitled |= served_by(pid, gateway.port)
                trial.victims.kill(pid)
            gateway.wait_for(lambda pid=pid: pid not in trial.victims.pids("receiver"), 10.0, "end of a receiver")
        figures = trial.prove()
        met = [sender.experience for sender in trial.senders]
    print(f"receivers killed: {kills} kills; {figures}")
    assert sum(each.refused for each in met) == 0
    assert [reason for each in met for reason in each.rejections] == []
    broken = [port for each in met for port in each.broken]
    assert broken, "no association was broken, so nothing was shown"
    assert set(broken) <= entitled


def test_ten_kills(tmp_path: Path) -> None:
    run(tmp_path, 10)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_fifty_kills(tmp_path: Path) -> None:
    run(tmp_path, 50)
