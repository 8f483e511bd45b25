"""Processes of any kind are killed, hung and starved at random under eight senders: nothing is lost or doubled."""

import random
import secrets
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.trial import Trial, seed_of_environment

SENDERS = 8
OUT_OF_RESOURCES = 0xA700


class Chaos:
    """Breaks one process after another.

    Args:
        trial: its gateway is the victim.
        pause_seconds: between two of them, at most.
        supervisor_share: how often it is the supervisor, which is then started again; every other time all processes
            of the gateway, runs included, die with it.
    """

    def __init__(self, trial: Trial, pause_seconds: float, supervisor_share: float = 0.03) -> None:
        self._trial = trial
        self._pause_seconds = pause_seconds
        self._supervisor_share = supervisor_share
        self._random = random.Random(trial.seed)
        self._never = threading.Event()
        self._starved: list[int] = []
        self.done: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """How many processes were broken."""
        return self.done.total()

    def strike(self) -> None:
        """Break one after a pause, if there is one."""
        self._never.wait(self._random.uniform(0.05, self._pause_seconds))
        if self._random.random() < self._supervisor_share:
            self._replace_supervisor()
            return
        chosen = self._trial.victims.choose(self._random)
        if chosen is None:
            return
        kind, pid = chosen
        lot = self._random.random()
        victims = self._trial.victims
        if lot < 0.75 or kind == "shim":
            name, did = "kill", victims.kill(pid)
        elif lot < 0.92:
            name, did = "hang", victims.hang(pid)
        else:
            name, did = "starve", victims.starve(pid)
            if did:
                self._starved.append(pid)
        if did:
            self.done[f"{name} {kind}"] += 1

    def end(self) -> None:
        """Give back what was taken."""
        for pid in self._starved:
            self._trial.victims.feed(pid)

    def _replace_supervisor(self) -> None:
        gateway, everything = self._trial.gateway, self._random.random() < 0.5
        gateway.kill_supervisor()
        if everything:
            for pid in gateway.left_over():
                self._trial.victims.kill(pid)
        gateway.launch()
        gateway.wait_for(gateway.running, 120.0, "gateway after its supervisor was killed")
        self.done["kill everything" if everything else "kill supervisor"] += 1


def run(
    directory: Path, *, kills: int, instances: int, pause_seconds: float, study_objects: int, sender_pause: float
) -> None:
    seed = seed_of_environment(secrets.randbelow(10**6))
    print(f"random kills: seed {seed}")
    with Trial(directory, pipelines=2, seed=seed) as trial:
        trial.send(SENDERS, study_objects=study_objects, association_objects=10, pause_seconds=sender_pause)
        chaos = Chaos(trial, pause_seconds)
        while chaos.count < kills:
            chaos.strike()
        chaos.end()
        trial.gateway.wait_for(lambda: trial.acknowledged >= instances, 300.0, f"{instances} acknowledged instances")
        # A starved receiver cannot open a file.
        figures = trial.prove(240.0, failures=frozenset({OUT_OF_RESOURCES}))
    print(f"random kills: {chaos.count} kills; {figures}; {dict(sorted(chaos.done.items()))}")


def test_a_short_run(tmp_path: Path) -> None:
    run(tmp_path, kills=12, instances=500, pause_seconds=0.8, study_objects=40, sender_pause=0.8)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_200_kills_over_20000_instances(tmp_path: Path) -> None:
    run(tmp_path, kills=200, instances=20_000, pause_seconds=1.5, study_objects=120, sender_pause=0.4)
